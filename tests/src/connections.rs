//! Whom a process is connected with, as the kernel says.

use std::collections::HashSet;
use std::fs::{read_dir, read_link, read_to_string};

/// What the kernel calls an established connection.
const ESTABLISHED: &str = "01";

/// How many TCP connections a process has to this port of any machine.
pub(crate) fn connections(process: u32, port: u16) -> usize {
    let open = read_dir(format!("/proc/{process}/fd")).expect("it runs");
    let links = open.filter_map(|file| read_link(file.ok()?.path()).ok());
    let sockets: HashSet<_> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let port = format!(":{port:04X}");
    let table = |name| read_to_string(format!("/proc/{process}/net/{name}")).expect("it runs");
    let tables = ["tcp", "tcp6"].map(table);
    let rows = tables.iter().flat_map(|table| table.lines().skip(1)).map(str::split_whitespace);
    // Of proc_net_tcp: number, own address, the other's, state; then what waits, timers, owner, and the inode.
    let rows = rows.map(Iterator::collect::<Vec<_>>);
    rows.filter(|row| row[2].ends_with(&port) && row[3] == ESTABLISHED && sockets.contains(row[9])).count()
}
