//! The log under back-pressure, gaps and lost leases.

use super::{BUFFER_BYTES, LINE_OVERHEAD_BYTES, open};
use crate::agent::{LeaseKey, Leases, Stop};
use crate::exec::tests::{lines, takes_logs};
use crate::stub::{Reply, Stub};
use crate::{Client, Credential};
use jobplane_protocol::{ErrorCode, ExecutionId, LeaseId, Problem, Stream, limits};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn key() -> LeaseKey {
    (ExecutionId(LeaseId::random().0), LeaseId::random())
}

fn client(stub: &Stub) -> Client {
    Client::new(&stub.url, Credential::None).unwrap()
}

#[tokio::test]
async fn lines_that_found_no_room_are_counted_in_the_log() {
    let stub = Stub::serve(takes_logs).await;
    let (mut log, shipper) = open(client(&stub), Arc::default(), Arc::default(), key());
    let text = "x".repeat(16 * 1024 - LINE_OVERHEAD_BYTES);
    let room = BUFFER_BYTES / (16 * 1024);
    tokio::time::pause();
    for _ in 0..room + 3 {
        log.push(Stream::Stdout, text.clone()).await;
    }
    tokio::time::resume();
    log.close();
    shipper.ship().await;
    let lines = lines(&stub);
    assert_eq!(lines.iter().filter(|line| **line == text).count(), room);
    assert_eq!(lines.len(), room + 1);
    assert!(lines.iter().any(|line| line.starts_with("[jobplane] 3 lines lost")));
}

#[tokio::test]
async fn nothing_is_sent_after_the_line_at_which_the_controller_ends_the_log() {
    let stub = Stub::serve(takes_logs).await;
    let (mut log, shipper) = open(client(&stub), Arc::default(), Arc::default(), key());
    let shipping = tokio::spawn(shipper.ship());
    let text = "x".repeat(16 * 1024);
    let most = limits::MAX_LOG_BYTES / text.len();
    for _ in 0..most + 100 {
        log.push(Stream::Stdout, text.clone()).await;
    }
    log.close();
    shipping.await.unwrap();
    assert_eq!(lines(&stub).len(), most + 1);
}

#[tokio::test]
async fn a_gap_is_closed_from_the_number_that_the_controller_expects() {
    let first = AtomicBool::new(true);
    let stub = Stub::serve(move |asked| {
        if first.swap(false, Ordering::Relaxed) {
            let mut problem = Problem::new(ErrorCode::LogGap, "the next chunk must start at 2");
            problem.next_seq = Some(2);
            return Reply::json(409, &problem);
        }
        takes_logs(asked)
    })
    .await;
    let (mut log, shipper) = open(client(&stub), Arc::default(), Arc::default(), key());
    for text in ["a", "b", "c", "d"] {
        log.push(Stream::Stdout, text.to_owned()).await;
    }
    log.close();
    shipper.ship().await;
    let chunks = stub.asked("/logs");
    let first_seqs: Vec<_> = chunks.iter().map(|chunk| chunk.body["first_seq"].as_i64().unwrap()).collect();
    assert_eq!(first_seqs, [0, 2]);
    assert_eq!(chunks[1].body["lines"].as_array().unwrap().len(), 2, "what it had is not sent again");
}

#[tokio::test]
async fn a_fenced_log_stops_its_job() {
    let stub = Stub::serve(|_| Reply::json(409, &Problem::new(ErrorCode::LeaseLost, "moved on"))).await;
    let leases = Arc::<Leases>::default();
    let key = key();
    let stop = leases.add(key);
    let (mut log, shipper) = open(client(&stub), leases.clone(), Arc::default(), key);
    log.push(Stream::Stdout, "a".to_owned()).await;
    log.close();
    shipper.ship().await;
    assert_eq!(*stop.borrow(), Some(Stop::Lost));
    assert!(!leases.holds(&key));
}
