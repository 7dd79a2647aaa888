//! A job's container before it runs: what it may do, what it is told, and the files that it is given.

use super::Engine;
use super::settings::ContainerSettings;
use crate::result_file::RESULT_FILE;
use crate::runtime;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::CreateContainerOptionsBuilder;
use jobplane_protocol::LeasedExecution;
use std::collections::HashMap;
use std::io;

/// A volume of the container's own: files can be put there and fetched whatever the rest of it is.
pub(super) const DIRECTORY: &str = "/jobplane";
const INPUT: &str = "input.json";
const OUTPUT: &str = "output";

/// Where the container's output is.
pub(super) fn output_path() -> String {
    format!("{DIRECTORY}/{OUTPUT}")
}

/// And in it the result.
pub(super) fn result_path() -> String {
    format!("{}/{RESULT_FILE}", output_path())
}

impl Engine {
    /// What the engine is asked for. A command takes the place of the image's entry point, as it is the program and
    /// its arguments. The variables are in this request alone, and in no process's arguments.
    pub(super) fn body(&self, image: &str, leased: &LeasedExecution, init: bool) -> ContainerCreateBody {
        let command = leased.job.command.as_deref().and_then(<[_]>::split_first);
        ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: command.map(|(program, _)| vec![program.clone()]),
            cmd: command.map(|(_, arguments)| arguments.to_vec()),
            env: Some(variables(leased, &self.variables)),
            user: self.settings.user().map(str::to_owned),
            volumes: Some(vec![DIRECTORY.to_owned()]),
            labels: Some(self.labels(leased)),
            host_config: Some(limits(&self.settings, init)),
            ..ContainerCreateBody::default()
        }
    }

    pub(super) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<(), EngineError> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        self.docker.create_container(Some(options), body).await.map(drop)
    }
}

fn limits(settings: &ContainerSettings, init: bool) -> HostConfig {
    let tmp = format!("rw,exec,nosuid,nodev,mode=1777,size={}", settings.tmp_bytes());
    HostConfig {
        memory: settings.container_memory,
        // With swap: so none on top.
        memory_swap: settings.container_memory,
        nano_cpus: settings.container_cpus,
        pids_limit: Some(settings.pids()),
        network_mode: Some(settings.network().to_owned()),
        readonly_rootfs: Some(!settings.container_writable),
        tmpfs: Some(HashMap::from([("/tmp".to_owned(), tmp)])),
        shm_size: Some(settings.tmp_bytes()),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(settings.capabilities()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // Without one, a job that does not handle SIGTERM would not hear it, being the first process.
        init: Some(init),
        // The worker reads the output as it comes; nobody needs it on the engine's disk, where it has no bound.
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        ..HostConfig::default()
    }
}

/// The operator's, the job's own over them, and last what the attempt is.
fn variables(leased: &LeasedExecution, inherited: &[(String, String)]) -> Vec<String> {
    let mut all: HashMap<&str, String> = HashMap::new();
    all.extend(inherited.iter().map(|(name, value)| (name.as_str(), value.clone())));
    all.extend(leased.job.env.iter().map(|(name, value)| (name.as_str(), value.clone())));
    all.extend(runtime::identity(leased));
    all.insert("JOBPLANE_INPUT", format!("{DIRECTORY}/{INPUT}"));
    all.insert("JOBPLANE_OUTPUT_DIR", output_path());
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// The input and the output directory as an archive. The volume is this container's alone, so that whoever the
/// job runs as may use them.
pub(super) fn files(leased: &LeasedExecution) -> io::Result<Vec<u8>> {
    let input = leased.input.as_ref().map_or("null", |input| input.get());
    let mut archive = tar::Builder::new(Vec::new());
    let mut directory = header(tar::EntryType::Directory, 0o777, 0);
    archive.append_data(&mut directory, OUTPUT, io::empty())?;
    let mut file = header(tar::EntryType::Regular, 0o644, input.len() as u64);
    archive.append_data(&mut file, INPUT, input.as_bytes())?;
    archive.into_inner()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header
}
