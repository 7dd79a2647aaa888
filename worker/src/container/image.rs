//! A job's image: its name, and getting it before the container is made.

use super::Engine;
use super::engine::{is_absent, is_away, status};
use super::settings::Pull;
use crate::error::with_causes;
use crate::logs::LogWriter;
use crate::runtime::Ending;
use bollard::errors::Error as EngineError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use jobplane_protocol::Stream;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Between two words about a pull.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// What registries say of an image that they do not have, or not for us.
const REFUSALS: [&str; 8] = [
    "manifest unknown",
    "name unknown",
    "not found",
    "does not exist",
    "denied",
    "unauthorized",
    "invalid reference",
    "no matching manifest",
];

/// The reference with its tag, without which an engine may pull every tag there is; `None` if it is none. It
/// becomes part of a path, so nothing that leads elsewhere is one.
pub(super) fn reference(image: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@+".contains(&byte);
    let well_formed = image.bytes().all(allowed)
        && image.split('/').all(|part| part.starts_with(|c: char| c.is_ascii_alphanumeric()))
        && !image.contains("..");
    let last = image.rsplit('/').next().unwrap_or_default();
    let tagged = last.contains([':', '@']);
    well_formed.then(|| if tagged { image.to_owned() } else { format!("{image}:latest") })
}

impl Engine {
    /// Sees to it that the engine has the image. The job's log and the worker's tell of a pull, since it can take long.
    pub(super) async fn provide(&self, image: &str, log: &mut LogWriter) -> Result<(), Ending> {
        let pull = self.settings.pull();
        let there = self.has(image).await?;
        if pull == Pull::Never && !there {
            let error = format!("this worker's engine has no image {image}, and may pull none");
            return Err(Ending::impossible(error));
        }
        if pull == Pull::Never || (pull == Pull::Missing && there) {
            return Ok(());
        }
        let began = Instant::now();
        say(log, format!("pulling {image}")).await;
        tracing::info!(image, "pulling");
        self.pull(image, log).await.map_err(|error| refused(image, &error))?;
        if !self.has(image).await? {
            return Err(Ending::failed(format!("{image} was pulled and is not there")));
        }
        let seconds = began.elapsed().as_secs();
        tracing::info!(image, seconds, "pulled");
        say(log, format!("pulled {image} in {seconds} s")).await;
        Ok(())
    }

    async fn has(&self, image: &str) -> Result<bool, Ending> {
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(super::engine::not_started(image, &error)),
        }
    }

    /// An engine may be silent for long while it fetches; the controller bounds that, as it does the attempt.
    async fn pull(&self, image: &str, log: &mut LogWriter) -> Result<(), EngineError> {
        let options = CreateImageOptionsBuilder::default().from_image(image).build();
        let mut steps = self.patient.create_image(Some(options), None, None);
        let began = Instant::now();
        let (mut said, mut doing) = (began, String::new());
        loop {
            match timeout(PROGRESS_INTERVAL, steps.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some(step)) => doing = described(&step?),
                Err(_) => {}
            }
            if said.elapsed() >= PROGRESS_INTERVAL {
                said = Instant::now();
                let seconds = began.elapsed().as_secs();
                tracing::info!(image, seconds, doing, "still pulling");
                say(log, format!("still pulling after {seconds} s: {doing}")).await;
            }
        }
    }
}

/// What an engine is doing, in its words.
fn described(step: &CreateImageInfo) -> String {
    let progress = step.progress_detail.as_ref();
    let bytes = progress.and_then(|detail| Some(format!("{} of {} bytes", detail.current?, detail.total?)));
    let words = [step.id.clone(), step.status.clone(), bytes];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// What a pull that fails means: an image that is not there, or not for us, never will be. A registry that does not
/// answer costs a try, and is not this machine's lack: the name of one that never answers is the job's to choose.
fn refused(image: &str, error: &EngineError) -> Ending {
    let text = format!("{image} could not be pulled: {}", with_causes(error));
    let lower = text.to_lowercase();
    let for_good = matches!(status(error), Some(400 | 401 | 403 | 404))
        || REFUSALS.iter().any(|refusal| lower.contains(refusal));
    if is_away(error) {
        Ending::unstarted(text)
    } else if for_good {
        Ending::impossible(text)
    } else {
        Ending::failed(text)
    }
}

async fn say(log: &mut LogWriter, text: String) {
    log.push(Stream::Stderr, format!("[jobplane] {text}")).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use jobplane_protocol::Outcome;

    #[test]
    fn a_reference_has_a_tag_and_leads_nowhere_else() {
        let full = |image| reference(image).unwrap();
        assert_eq!(full("alpine"), "alpine:latest");
        assert_eq!(full("localhost:5000/team/app"), "localhost:5000/team/app:latest");
        assert_eq!(full("ghcr.io/a/b:1.2"), "ghcr.io/a/b:1.2");
        assert_eq!(full("a@sha256:00"), "a@sha256:00");
        for wrong in
            ["", "../containers/x", "a/../b", "a b", "a?x=1", "-a", "a//b", "a%2e", "a#b", "/a", "a/"]
        {
            assert_eq!(reference(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_image_that_is_not_there_never_will_be_and_a_registry_that_is_away_may_come_back() {
        let stream = |error: &str| EngineError::DockerStreamError { error: error.to_owned() };
        let server = |status_code, message: &str| EngineError::DockerResponseServerError {
            status_code,
            message: message.to_owned(),
        };
        for error in [
            server(404, "pull access denied for x, repository does not exist or may require 'docker login'"),
            server(500, "reading manifest latest in docker.io/library/x: errors: denied: requested access"),
            stream("manifest unknown: manifest unknown"),
        ] {
            assert_eq!(refused("x", &error).retryable, Some(false), "{error}");
        }
        for error in [
            server(500, "Get \"https://registry/v2/\": dial tcp: lookup registry: no such host"),
            stream("toomanyrequests: You have reached your pull rate limit"),
        ] {
            let ending = refused("x", &error);
            assert_eq!((ending.outcome, ending.retryable), (Outcome::Failed, None), "{error}");
        }
        assert!(refused("x", &EngineError::RequestTimeoutError).unstarted);
    }
}
