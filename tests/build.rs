//! Tells the tests whether this machine can run a container engine, so that those that need one say that they are
//! ignored, and why, where it cannot.

use std::path::Path;
use std::process::Command;

/// What the engine of the tests is made of, as Debian installs it.
const PARTS: [&str; 4] = ["/usr/bin/podman", "/usr/sbin/runc", "/usr/bin/catatonit", "/bin/busybox"];

fn main() {
    println!("cargo::rustc-check-cfg=cfg(engine)");
    for part in PARTS {
        println!("cargo::rerun-if-changed={part}");
    }
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.starts_with(b"0\n"));
    if is_root && PARTS.iter().all(|part| Path::new(part).exists()) {
        println!("cargo::rustc-cfg=engine");
    }
}
