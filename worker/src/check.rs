//! `--check`: whether a worker with these settings would work here, said one line for each thing that it needs.

use crate::agent::{Leases, Progress};
use crate::client::Probed;
use crate::runtime::{self, Runtime};
use crate::{Client, Error, RuntimeKind, Settings, logs};
use jiff::{SignedDuration, Timestamp};
use jobplane_protocol::{
    ErrorCode, ExecutionId, Health, HeartbeatItem, HeartbeatsRequest, HeartbeatsResponse, LeaseId,
    LeasedExecution, Outcome,
};
use std::sync::Arc;

/// How far the clocks may be apart without a word: nothing is decided by a worker's, but lines carry its time.
const MAX_SKEW: SignedDuration = SignedDuration::from_secs(5);

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Work is possible all the same.
    Odd,
    Bad,
}

/// One line.
struct Finding {
    verdict: Verdict,
    what: &'static str,
    detail: String,
}

impl Finding {
    fn good(what: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what, detail: detail.into() }
    }

    fn odd(what: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Odd, what, detail: detail.into() }
    }

    fn bad(what: &'static str, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Bad, what, detail: detail.into() }
    }

    fn say(self) -> Verdict {
        let word = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Odd => "warning",
            Verdict::Bad => "FAILED",
        };
        println!("{word:<8} {:<8} {}", self.what, self.detail);
        self.verdict
    }
}

/// Says on standard output, in a line for each, whether what a worker with these settings needs is there; takes no
/// work. Whether all of it is. The process's `main` must have begun with [`warden`](crate::warden).
pub async fn check(settings: &Settings) -> bool {
    let client = match settings.options().and_then(|options| options.client()) {
        Ok(client) => {
            Finding::good("settings", format!("the controller is {}", client.base_url())).say();
            client
        }
        Err(error) => {
            Finding::bad("settings", error.to_string()).say();
            return false;
        }
    };
    let mut verdicts = Vec::new();
    match client.probe("/healthz").await {
        Ok(probed) => {
            let is_one = controller(&client, &probed).say();
            verdicts.push(is_one);
            if is_one == Verdict::Good {
                verdicts.push(clock(&probed).say());
                verdicts.push(token(&client).await.say());
            }
        }
        Err(cause) => verdicts.push(Finding::bad("url", unreached(&cause)).say()),
    }
    verdicts.push(tried(settings, client).await.say());
    !verdicts.contains(&Verdict::Bad)
}

/// What keeps this machine from the controller, and what may help.
fn unreached(cause: &str) -> String {
    let helps = [
        ("dns error", "the name is not known here: mend JOBPLANE_URL or this machine's name servers"),
        (
            "certificate",
            "the certificate is not trusted here: SSL_CERT_FILE names a file of authorities that are",
        ),
        ("refused", "nothing listens there: start the controller, or mend the port in JOBPLANE_URL"),
        ("timed out", "no answer came: a firewall, or a proxy that HTTPS_PROXY should name"),
    ];
    let help = helps.iter().find(|(sign, _)| cause.contains(sign));
    help.map_or_else(|| cause.to_owned(), |(_, help)| format!("{cause}; {help}"))
}

/// Whether it is a controller that answers.
fn controller(client: &Client, probed: &Probed) -> Finding {
    match serde_json::from_slice::<Health>(&probed.body) {
        Ok(health) if probed.status == 200 => {
            let ours = env!("CARGO_PKG_VERSION");
            Finding::good(
                "url",
                format!("a controller of version {} answers; this is {ours}", health.version),
            )
        }
        _ => {
            let (url, status) = (client.base_url(), probed.status);
            let detail =
                format!("{url}/healthz answered {status}, and not as a controller does: mend JOBPLANE_URL");
            Finding::bad("url", detail)
        }
    }
}

fn clock(probed: &Probed) -> Finding {
    let Some(date) = probed.date else {
        return Finding::odd("clock", "the answer has no Date to compare this clock with");
    };
    let skew = Timestamp::now().duration_since(date);
    if skew.abs() <= MAX_SKEW {
        return Finding::good("clock", "as the controller's, within seconds");
    }
    let seconds = skew.as_secs();
    let detail =
        format!("{seconds} s ahead of the controller's: lines of jobs get wrong times; set it by NTP");
    Finding::odd("clock", detail)
}

/// Whether the token is good: a heartbeat for a lease that nobody has changes nothing.
async fn token(client: &Client) -> Finding {
    let nobody = HeartbeatItem {
        execution_id: ExecutionId(LeaseId::random().0),
        lease_id: LeaseId::random(),
        progress: None,
    };
    let request = HeartbeatsRequest { leases: vec![nobody] };
    let call = client.post("/internal/executions/heartbeats").json(&request).once();
    match call.send::<HeartbeatsResponse>().await {
        Ok(_) => Finding::good("token", "the controller takes it"),
        Err(error) => {
            let help = match error.code() {
                Some(ErrorCode::Unauthorized) => "; it is wrong, revoked or of another controller: make one",
                Some(ErrorCode::WrongTokenKind) => {
                    "; it is no worker's: make one with `jobplane worker-token create`"
                }
                _ => "",
            };
            Finding::bad("token", format!("{error}{help}"))
        }
    }
}

/// Whether this machine can run a job.
async fn tried(settings: &Settings, client: Client) -> Finding {
    let ran = async {
        let runtime = settings.runtime()?;
        runtime.check().await?;
        match settings.runtime {
            RuntimeKind::Exec => try_exec(&*runtime, client).await,
            // What image a job will have is not known here.
            RuntimeKind::Container => Ok(format!(
                "the engine at {} starts containers with these settings",
                settings.container.host()
            )),
        }
    };
    match ran.await {
        Ok(detail) => Finding::good("runtime", detail),
        Err(error) => Finding::bad("runtime", error.to_string()),
    }
}

/// Runs a job as any other: this program, asked for its version.
async fn try_exec(runtime: &dyn Runtime, client: Client) -> Result<String, Error> {
    let program = std::env::current_exe()
        .map_err(|error| Error::Configuration(format!("this program has no path: {error}")))?;
    let leased = runtime::trial(&[&program.to_string_lossy(), "--version"]);
    match run(runtime, &leased, client).await {
        None => Ok(format!("a job was run, with its directory in {}", std::env::temp_dir().display())),
        Some(why) => Err(Error::Configuration(format!("no job can be run: {why}"))),
    }
}

/// Runs it, and says what is wrong if it does not succeed. Its lines go nowhere.
async fn run(runtime: &dyn Runtime, leased: &LeasedExecution, client: Client) -> Option<String> {
    let leases = Arc::<Leases>::default();
    let key = (leased.execution_id, LeaseId::random());
    let stop = leases.add(key);
    let (mut log, _nowhere) = logs::open(client, leases.clone(), Arc::default(), key);
    let ending = runtime.run(leased, &mut log, Progress::new(leases.clone(), key), stop).await;
    log.close();
    let why = ending.error.unwrap_or_else(|| format!("it ended as {:?}", ending.outcome));
    (ending.outcome != Outcome::Succeeded).then_some(why)
}
