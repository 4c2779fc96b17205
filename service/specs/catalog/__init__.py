"""The catalog: data sets, models, optimizers and schedules that a job can name."""
