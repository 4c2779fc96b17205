// Statuses of jobs and comparisons.

export const JOB_STATUSES = ["queued", "running", "succeeded", "failed", "cancelled"];
const FINAL_JOB_STATUSES = ["succeeded", "failed", "cancelled"];

export const isFinalJob = (job) => FINAL_JOB_STATUSES.includes(job.status);

export const isFinalComparison = (answer) => answer.status !== "running";
