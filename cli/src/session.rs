//! What every command that calls a controller is given: the client, the output, and who it speaks as.

use crate::commands::Globals;
use crate::failure::Refusal;
use crate::output::Output;
use crate::profile::Profiles;
use crate::sources::{Kept, Source, dev_file, is_local, settle};
pub use crate::sources::{Need, Origin, Target};
use anyhow::Context;
use jobplane_worker::{Client, Credential, RetryPolicy};
use std::time::Duration;

/// What one attempt of a call may take: a batch of a thousand runs on a busy machine included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(20);

/// A controller to call and somewhere to print.
pub struct Session {
    /// Calls the controller, retrying what may be repeated.
    pub client: Client,
    /// Prints.
    pub output: Output,
    /// Who is called, with which token, and where both came from.
    pub target: Target,
}

impl Session {
    /// Finds out who to call and as whom.
    ///
    /// # Errors
    /// When no URL or no fitting token is known, or nothing listens at a URL of this machine.
    pub async fn open(globals: &Globals, need: Need) -> anyhow::Result<Self> {
        let target = settle(sources(globals, need)?, need)?;
        if is_local(&target.url) {
            refuse_closed_port(&target).await?;
        }
        let policy = RetryPolicy { attempt_timeout: ATTEMPT_TIMEOUT, ..RetryPolicy::default() };
        let client = Client::with_policy(&target.url, Credential::Value(target.token.clone()), policy)?;
        Ok(Self { client, output: Output::new(globals.output), target })
    }
}

/// What may know the controller, the first to be believed first: flags, a profile named by flag, environment,
/// the profile that is current, what `jobplane dev` left.
fn sources(globals: &Globals, need: Need) -> anyhow::Result<Vec<Source>> {
    let env = |name: &'static str| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty());
        value.map(|value| (Origin::Environment(name), value))
    };
    let flag =
        |name: &'static str, value: &Option<String>| value.clone().map(|value| (Origin::Flag(name), value));
    let flags = Source {
        url: flag("--url", &globals.url),
        given: flag("--token", &globals.token),
        kept: Kept::default(),
    };
    let environment =
        Source { url: env("JOBPLANE_URL"), given: env("JOBPLANE_TOKEN"), kept: Kept::default() };
    let named = globals.profile.clone().or_else(|| env("JOBPLANE_PROFILE").map(|(_, name)| name));
    let profile = match Profiles::load()?.chosen(named.as_deref())? {
        Some((name, profile)) => Some(profile.source(name, need)?),
        None => None,
    };
    let mut sources = vec![flags, environment];
    if let Some(profile) = profile {
        let place = if globals.profile.is_some() { 1 } else { 2 };
        sources.insert(place, profile);
    }
    let directory = std::env::current_dir().context("cannot tell the current directory")?;
    match dev_file(&directory) {
        Ok(found) => sources.extend(found),
        Err(error) if sources.iter().all(|source| source.url.is_none()) => return Err(error),
        Err(_) => {}
    }
    Ok(sources)
}

/// Where nothing listens on this machine, waiting will not help: says so at once.
async fn refuse_closed_port(target: &Target) -> anyhow::Result<()> {
    let authority = target.url.trim_start_matches("http://").split('/').next().unwrap_or_default();
    match tokio::net::TcpStream::connect(authority).await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Err(Refusal::Unreachable(
            format!("nothing listens at {}\n  {}", target.url, target.unreachable()),
        )
        .into()),
        _ => Ok(()),
    }
}
