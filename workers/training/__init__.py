"""The training engine: data sets, models, optimizers and schedules by their catalog names, and the loop over them."""
