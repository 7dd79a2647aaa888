//! What the container runtime is told: where the engine is, and what a job's container may use.

use clap::{Args, ValueEnum};

/// Where an engine listens unless something says otherwise.
const DEFAULT_HOST: &str = "/var/run/docker.sock";
/// Processes and threads of one container.
const DEFAULT_PIDS: i64 = 1_000;
/// What fits into `/tmp`.
const DEFAULT_TMP_BYTES: i64 = 64 * 1024 * 1024;
/// No network at all.
const DEFAULT_NETWORK: &str = "none";

/// What only the container runtime needs to know; without these flags it is as strict as it can be.
#[derive(Debug, Clone, Default, Args)]
pub struct ContainerSettings {
    /// The engine: a socket's path, unix://, tcp:// or http:// [default: DOCKER_HOST, else /var/run/docker.sock]
    #[arg(long, env = "JOBPLANE_CONTAINER_HOST")]
    pub container_host: Option<String>,

    /// The image of jobs that name none; without it they fail
    #[arg(long, env = "JOBPLANE_CONTAINER_IMAGE")]
    pub container_image: Option<String>,

    /// What images that jobs name must begin with, with commas between, such as ghcr.io/acme/ [default: anything]
    #[arg(long, env = "JOBPLANE_CONTAINER_IMAGES", value_delimiter = ',')]
    pub container_images: Vec<String>,

    /// When images are pulled [default: missing]
    #[arg(long, env = "JOBPLANE_CONTAINER_PULL", value_enum)]
    pub container_pull: Option<Pull>,

    /// A container's memory, swap included, such as 512m or 2g [default: the machine's]
    #[arg(long, env = "JOBPLANE_CONTAINER_MEMORY", value_parser = bytes)]
    pub container_memory: Option<i64>,

    /// A container's processors, such as 0.5 [default: the machine's]
    #[arg(long, env = "JOBPLANE_CONTAINER_CPUS", value_parser = nano_cpus)]
    pub container_cpus: Option<i64>,

    /// A container's processes and threads [default: 1000]
    #[arg(long, env = "JOBPLANE_CONTAINER_PIDS", value_parser = clap::value_parser!(i64).range(1..))]
    pub container_pids: Option<i64>,

    /// The engine's network that containers join [default: none]
    #[arg(long, env = "JOBPLANE_CONTAINER_NETWORK")]
    pub container_network: Option<String>,

    /// What fits into a container's /tmp, and into its /dev/shm, which are memory [default: 64m]
    #[arg(long, env = "JOBPLANE_CONTAINER_TMP", value_parser = bytes)]
    pub container_tmp: Option<i64>,

    /// Let jobs write anywhere in their container, not only to /tmp and the output directory
    #[arg(long, env = "JOBPLANE_CONTAINER_WRITABLE")]
    pub container_writable: bool,

    /// The user that jobs run as, in place of their image's
    #[arg(long, env = "JOBPLANE_CONTAINER_USER")]
    pub container_user: Option<String>,

    /// Capabilities that containers keep, with commas between [default: none]
    #[arg(long, env = "JOBPLANE_CONTAINER_CAPABILITIES", value_delimiter = ',')]
    pub container_capabilities: Vec<String>,
}

/// When images are pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// When the engine has none of that name.
    #[default]
    Missing,
    /// Before every attempt.
    Always,
    /// Never: a job whose image is not there fails.
    Never,
}

impl ContainerSettings {
    pub(crate) fn host(&self) -> String {
        let usual = std::env::var("DOCKER_HOST").ok();
        said(&self.container_host).or_else(|| said(&usual)).unwrap_or(DEFAULT_HOST).to_owned()
    }

    /// The image of jobs that name none.
    pub(super) fn image(&self) -> Option<&str> {
        said(&self.container_image)
    }

    /// Whether jobs may name this image. What is allowed ends where a part of the name does, so that nobody else's name
    /// begins as an allowed one.
    pub(super) fn allows(&self, image: &str) -> bool {
        let mut allowed = self.container_images.iter().filter(|prefix| !prefix.is_empty()).peekable();
        let begins = |prefix: &String| {
            let rest = image.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with(['/', ':', '@']) || rest.starts_with(['/', ':', '@'])
            })
        };
        allowed.peek().is_none() || allowed.any(begins)
    }

    pub(super) fn pull(&self) -> Pull {
        self.container_pull.unwrap_or_default()
    }

    pub(super) fn pids(&self) -> i64 {
        self.container_pids.unwrap_or(DEFAULT_PIDS)
    }

    pub(super) fn tmp_bytes(&self) -> i64 {
        self.container_tmp.unwrap_or(DEFAULT_TMP_BYTES)
    }

    pub(super) fn network(&self) -> &str {
        said(&self.container_network).unwrap_or(DEFAULT_NETWORK)
    }

    pub(super) fn user(&self) -> Option<&str> {
        said(&self.container_user)
    }

    pub(super) fn capabilities(&self) -> Vec<String> {
        self.container_capabilities.iter().filter(|name| !name.is_empty()).cloned().collect()
    }
}

/// A variable that is empty says nothing.
fn said(value: &Option<String>) -> Option<&str> {
    value.as_deref().filter(|value| !value.is_empty())
}

/// `512m` is half a gibibyte; a plain number is bytes.
fn bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let (number, unit) = lower.split_at(lower.trim_end_matches(|c: char| c.is_ascii_alphabetic()).len());
    let factor = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 1,
        "k" => 1024,
        "m" => 1024 * 1024,
        "g" => 1024 * 1024 * 1024,
        _ => return Err("a number of bytes, or one with k, m or g".to_owned()),
    };
    let number: i64 = number.parse().map_err(|_| "not a whole number".to_owned())?;
    number.checked_mul(factor).filter(|&bytes| bytes > 0).ok_or_else(|| "out of range".to_owned())
}

/// In billionths, as the engine counts them.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, String> {
    let cpus: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.01..=10_000.0).contains(&cpus) {
        return Err("out of range: 0.01 or more".to_owned());
    }
    #[allow(clippy::cast_possible_truncation, reason = "in range, as was just seen")]
    Ok((cpus * 1e9) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_allowed_if_it_begins_with_whole_parts_of_a_name_that_is() {
        let only = |images: &[&str]| ContainerSettings {
            container_images: images.iter().map(|&image| image.to_owned()).collect(),
            ..ContainerSettings::default()
        };
        let some = only(&["ghcr.io/acme/", "python", "alpine:3.20"]);
        for allowed in ["ghcr.io/acme/x:1", "python:3.13", "python@sha256:00", "alpine:3.20"] {
            assert!(some.allows(allowed), "{allowed}");
        }
        for other in
            ["ghcr.io/acme.evil/x:1", "python-evil:3", "alpine:3.20.evil", "evil/python:3", "alpine:1"]
        {
            assert!(!some.allows(other), "{other}");
        }
        assert!(only(&[]).allows("x:1") && only(&[""]).allows("x:1"));
    }

    #[test]
    fn a_variable_that_is_empty_says_nothing() {
        let empty = || Some(String::new());
        let settings = ContainerSettings {
            container_host: empty(),
            container_image: empty(),
            container_network: empty(),
            container_user: empty(),
            container_capabilities: vec![String::new()],
            ..ContainerSettings::default()
        };
        assert_eq!((settings.image(), settings.user(), settings.network()), (None, None, "none"));
        assert!(settings.capabilities().is_empty() && !settings.host().is_empty());
    }

    #[test]
    fn sizes_and_processors_are_read_as_people_write_them() {
        let sizes = ["512m", "1G", "2GiB", "4kb", "100"].map(|text| bytes(text).unwrap());
        assert_eq!(sizes, [512 << 20, 1 << 30, 2 << 30, 4096, 100]);
        assert!(
            ["", "m", "1.5g", "-1m", "0", "1x", "9999999999g"].into_iter().all(|text| bytes(text).is_err())
        );
        assert_eq!(nano_cpus("0.5"), Ok(500_000_000));
        assert!(["0", "-1", "x", "nan"].into_iter().all(|text| nano_cpus(text).is_err()));
    }
}
