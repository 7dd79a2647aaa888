//! Every bound of the contract, named. Sizes are bytes of UTF-8 unless the name says otherwise.

/// A request's body. Lambda's 6 MB counts the body escaped into JSON, up to twice its size.
pub const MAX_REQUEST_BYTES: usize = 2_500_000;
/// How much of a body over the limit is read before it is refused, so that its sender hears of it.
pub const MAX_READ_BYTES: usize = 10_000_000;
/// What one dequeue hands out: inputs, environments and commands together. Always at least one row.
pub const MAX_DEQUEUE_BYTES: usize = 2_500_000;
/// The input of one execution.
pub const MAX_INPUT_BYTES: usize = 256 * 1024;
/// The result of one execution.
pub const MAX_RESULT_BYTES: usize = 1024 * 1024;
/// The error text of one attempt.
pub const MAX_ERROR_BYTES: usize = 16 * 1024;
/// The progress that a heartbeat carries.
pub const MAX_PROGRESS_BYTES: usize = 4 * 1024;
/// The text of one chunk of log lines.
pub const MAX_LOG_CHUNK_BYTES: usize = 256 * 1024;
/// Lines in one chunk of log lines.
pub const MAX_LOG_CHUNK_LINES: usize = 10_000;
/// The logs of one execution as they are stored (JSON), all its attempts together; then a truncation line, then nothing.
pub const MAX_LOG_BYTES: usize = 10 * 1024 * 1024;
/// What one answer of log lines holds, about.
pub const MAX_LOG_PAGE_BYTES: usize = 1_000_000;
/// Refused fields that one error names.
pub const MAX_FIELD_ERRORS: usize = 100;
/// Each text of an error, about; what is longer is cut.
pub const MAX_ERROR_TEXT_BYTES: usize = 200;
/// What one page of a list holds, about; then it is short, with a cursor. Always at least one item.
pub const MAX_PAGE_BYTES: usize = 2_500_000;
/// The error texts in the history of one execution; its oldest attempts are left out beyond it.
pub const MAX_HISTORY_BYTES: usize = 1_000_000;
/// How deep input, result and progress may nest, so that no reader's parser gives up on them.
pub const MAX_JSON_DEPTH: usize = 100;

/// Executions one dequeue may ask for.
pub const MAX_DEQUEUE: u32 = 1_000;
/// Items of a batch of heartbeats, results or runs.
pub const MAX_BATCH: usize = 1_000;
/// Items of a page of a list, attempts in the history of an execution.
pub const MAX_PAGE: u32 = 1_000;
/// Items of a page when the request does not say.
pub const DEFAULT_PAGE: u32 = 100;
/// Rows that one call of a filtered list examines before it answers a short page.
pub const MAX_EXAMINED: i64 = 10_000;
/// How far `GET /queues` and `GET /tenant` count; beyond it they say that they did not.
pub const MAX_COUNTED: i64 = 10_000;
/// Queues that one dequeue or one worker token may list.
pub const MAX_QUEUES: usize = 100;
/// Tenants that one dequeue or one worker token may list.
pub const MAX_TENANTS: usize = 1_000;
/// How long a dequeue may ask to be held, in milliseconds.
pub const MAX_WAIT_MS: u32 = 20_000;

/// The name of a tenant, job, queue, key, token or worker.
pub const MAX_NAME_BYTES: usize = 200;
/// An `Idempotency-Key`.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;
/// A job's command, all arguments together.
pub const MAX_COMMAND_BYTES: usize = 32 * 1024;
/// A job's or a run's environment, names and values together.
pub const MAX_ENV_BYTES: usize = 32 * 1024;
/// An attempt's time limit, in seconds: a week.
pub const MAX_TIMEOUT_SECONDS: i32 = 7 * 24 * 3600;
/// Tries that a job may allow itself.
pub const MAX_ATTEMPTS: i32 = 100;
/// The longest wait between two tries, in seconds: a week.
pub const MAX_BACKOFF_SECONDS: i32 = 7 * 24 * 3600;
/// How far ahead an execution may be scheduled, in days.
pub const MAX_SCHEDULE_DAYS: i64 = 366;
/// A tenant's weight in the fair order.
pub const MAX_WEIGHT: i32 = 1_000;
/// A limit on how many run at once.
pub const MAX_RUNNING_LIMIT: i32 = 10_000;
/// A tenant's limit on executions asked for per second.
pub const MAX_RATE_PER_SECOND: i32 = 1_000_000;

/// How long a lease lasts without a heartbeat, in seconds, unless the control plane is told otherwise.
pub const LEASE_SECONDS: i32 = 60;
/// The shortest lease that the control plane may be told to give, in seconds.
pub const MIN_LEASE_SECONDS: i32 = 5;
/// The longest lease that the control plane may be told to give, in seconds.
pub const MAX_LEASE_SECONDS: i32 = 3600;
/// Heartbeats of a worker in the time of one lease.
pub const HEARTBEATS_PER_LEASE: i32 = 3;
/// What an attempt gets on top of its timeout before the controller ends it, in seconds.
pub const DEADLINE_GRACE_SECONDS: i32 = 60;
/// How long after a lease's own result its log chunks are still taken, in seconds.
pub const LOG_GRACE_SECONDS: i32 = 60;
/// How long an idempotency key is remembered, in hours.
pub const IDEMPOTENCY_HOURS: i32 = 24;

/// How long an execution is kept after it ended, in days, unless the control plane is told otherwise.
pub const KEEP_DAYS: i32 = 30;
/// How long a dead letter is kept, in days, unless the control plane is told otherwise.
pub const KEEP_DEAD_LETTERS_DAYS: i32 = 90;
/// The longest that the control plane may be told to keep either, in days: every week kept is one more partition that
/// a list has to look into.
pub const MAX_KEEP_DAYS: i32 = 366;
