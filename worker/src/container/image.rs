//! A job's image: its name, and getting it before the container is made.

use super::Engine;
use super::engine::{is_absent, status};
use super::settings::Pull;
use crate::error::with_causes;
use crate::logs::LogWriter;
use crate::runtime::Ending;
use bollard::errors::Error as EngineError;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt;
use jobplane_protocol::{LeasedExecution, Stream};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Between two words about a pull.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);
/// What registries say of an image that they do not have, or not for us.
const REFUSALS: [&str; 9] = [
    "manifest unknown",
    "name unknown",
    "failed to resolve reference",
    "does not exist",
    "access denied",
    "requested access",
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
    /// The image of this job's containers, or why it gets none.
    pub(super) fn image(&self, leased: &LeasedExecution) -> Result<String, Ending> {
        let settings = &self.settings;
        let Some(named) = leased.job.image.as_deref().or(settings.image()) else {
            let error = "the job has no image, and this worker runs nothing without one";
            return Err(Ending::impossible(error));
        };
        let Some(image) = reference(named) else {
            return Err(Ending::impossible(format!("{named} is not the name of an image")));
        };
        if leased.job.image.is_some() && !settings.allows(&image) {
            let allowed = settings.container_images.join(", ");
            let error = format!("this worker may not run {image}: only images that begin with {allowed}");
            return Err(Ending::impossible(error));
        }
        Ok(image)
    }

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
        if let Err(error) = self.pull(image, log).await {
            return Err(self.not_pulled(image, &error).await);
        }
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
            Err(error) => {
                let text =
                    format!("the engine could not say whether it has {image}: {}", with_causes(&error));
                Err(self.blame(text, &error, false).await)
            }
        }
    }

    /// What a pull that fails means: an image that is not there, or not for us, never will be. A registry that does not
    /// answer costs a try, and is not this machine's lack: the name of one that never answers is the job's to choose. So is
    /// the size of an image that this disk has no room for.
    async fn not_pulled(&self, image: &str, error: &EngineError) -> Ending {
        let text = format!("{image} could not be pulled: {}", with_causes(error));
        self.blame(text, error, is_refused(error)).await
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

/// Whether the registry says that it has no such image, or not for us. A word with a slash or a colon within is an address or a
/// name: the job's, which may be called as it likes.
fn is_refused(error: &EngineError) -> bool {
    let text = with_causes(error).to_lowercase();
    let is_name = |word: &&str| word.trim_end_matches(|c: char| !c.is_alphanumeric()).contains(['/', ':']);
    let words: Vec<_> = text.split_whitespace().filter(|word| !is_name(word)).collect();
    let text = words.join(" ");
    matches!(status(error), Some(400 | 401 | 403 | 404))
        || REFUSALS.iter().any(|refusal| text.contains(refusal))
}

async fn say(log: &mut LogWriter, text: String) {
    log.push(Stream::Stderr, format!("[jobplane] {text}")).await;
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(is_refused(&error), "{error}");
        }
        for error in [
            server(500, "Get \"https://registry/v2/\": dial tcp: lookup registry: no such host"),
            stream("toomanyrequests: You have reached your pull rate limit"),
            server(500, "mkdir /var/lib/containers/storage/overlay: permission denied"),
            stream("error getting credentials - err: exec: \"helper\": executable file not found in $PATH"),
        ] {
            assert!(!is_refused(&error), "{error}");
        }
        for named in ["registry/v2/denied/manifests/latest", "registry/v2/a/unauthorized/manifests/1"] {
            let error = format!("Get \"https://{named}\": dial tcp 10.0.0.1:443: i/o timeout");
            assert!(!is_refused(&server(500, &error)), "{named}");
        }
    }
}
