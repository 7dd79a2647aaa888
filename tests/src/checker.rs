//! The history checker: what must be true of a run's every execution, whatever happened on the way, and what is not.

use crate::{Cell, text};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use uuid::Uuid;

/// What is known of a run: from its jobs, from the API and from the tables.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Each execution that was acknowledged to who asked for it.
    pub executions: BTreeMap<Uuid, Execution>,
    /// Executions that exist and were not acknowledged.
    pub unasked: usize,
    /// Rows left in the tables of work in flight.
    pub in_flight: i64,
}

/// One execution.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its status as the API shows it.
    pub status: String,
    /// Tries that its job allows.
    pub max_attempts: i32,
    /// Its attempts in order, as the controller recorded them.
    pub attempts: Vec<Attempt>,
    /// The attempts that its job said it started, as often as it said so.
    pub started: Vec<i32>,
    /// The attempts that its job said it finished.
    pub finished: Vec<i32>,
}

/// One attempt as the controller recorded it.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// Its number, from 1; 0 for a cancel before the first.
    pub number: i32,
    /// How it ended.
    pub outcome: String,
    /// What was decided.
    pub status: String,
    /// Tries spent until its end.
    pub tries: i32,
    /// Its lease.
    pub lease_id: Option<Uuid>,
    /// When its lease began, in the controller's time.
    pub started_at: Option<Timestamp>,
    /// When it ended, in the controller's time.
    pub finished_at: Timestamp,
}

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The rule's name.
    pub rule: &'static str,
    /// Where, and how it was seen.
    pub seen: String,
}

impl Display for Violation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.seen)
    }
}

/// What a job of a checked run does first and last: the lines `start ID ATTEMPT` and `end ID ATTEMPT` appended to the
/// file `$LEDGER`. They are what really happened; the platform has no hand in them.
pub fn ledger_job(work: &str) -> Vec<String> {
    let line = |word: &str| format!("echo {word} $JOBPLANE_EXECUTION_ID $JOBPLANE_ATTEMPT >> \"$LEDGER\"");
    vec!["sh".to_owned(), "-ec".to_owned(), format!("{}; {work}; {}", line("start"), line("end"))]
}

impl History {
    /// Reads what is known of these executions of the first tenant's, and what their jobs wrote.
    pub async fn read(cell: &Cell, acknowledged: &[String], ledger: &str) -> Self {
        let mut history = Self::default();
        let statuses = statuses(cell).await;
        history.in_flight = cell.in_flight().await;
        history.unasked = statuses.len().saturating_sub(acknowledged.len());
        let allowed = "select e.id, j.max_attempts from executions e join jobs j on j.id = e.job_id";
        let allowed = cell.db.query(allowed, &[]).await.expect("the statement runs");
        let allowed: BTreeMap<Uuid, i32> = allowed.iter().map(|row| (row.get(0), row.get(1))).collect();
        for id in acknowledged.iter().map(|id| id.parse().expect("an id")) {
            let execution = Execution {
                status: statuses.get(&id).cloned().unwrap_or_default(),
                max_attempts: allowed.get(&id).copied().unwrap_or_default(),
                attempts: Vec::new(),
                started: Vec::new(),
                finished: Vec::new(),
            };
            history.executions.insert(id, execution);
        }
        history.read_attempts(cell).await;
        history.read_ledger(ledger);
        history
    }

    async fn read_attempts(&mut self, cell: &Cell) {
        let sql = "select execution_id, attempt, outcome, status, tries, lease_id, started_at, finished_at
                   from attempts order by execution_id, finished_at";
        for row in cell.db.query(sql, &[]).await.expect("the statement runs") {
            if let Some(execution) = self.executions.get_mut(&row.get::<_, Uuid>(0)) {
                execution.attempts.push(Attempt {
                    number: row.get(1),
                    outcome: row.get(2),
                    status: row.get(3),
                    tries: row.get(4),
                    lease_id: row.get(5),
                    started_at: row.get(6),
                    finished_at: row.get(7),
                });
            }
        }
    }

    fn read_ledger(&mut self, ledger: &str) {
        for line in ledger.lines() {
            let mut words = line.split(' ');
            let (word, id, attempt) = (words.next(), words.next(), words.next());
            let id: Uuid = id.and_then(|id| id.parse().ok()).expect("a line of the ledger");
            let attempt: i32 =
                attempt.and_then(|attempt| attempt.parse().ok()).expect("a line of the ledger");
            let execution =
                self.executions.entry(id).or_insert_with(|| panic!("{id} ran and nobody asked for it"));
            if word == Some("start") { &mut execution.started } else { &mut execution.finished }
                .push(attempt);
        }
    }

    /// Every rule that does not hold, and where.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.unasked > 0 {
            let seen = format!("{} executions exist that were not acknowledged", self.unasked);
            found.push(Violation { rule: "only what was asked for exists", seen });
        }
        if self.in_flight > 0 {
            let seen = format!("{} rows are left in flight", self.in_flight);
            found.push(Violation { rule: "nothing stays in flight", seen });
        }
        for (id, execution) in &self.executions {
            for (rule, holds) in RULES {
                if !holds(execution) {
                    found.push(Violation { rule, seen: format!("{id}: {execution:?}") });
                }
            }
        }
        found
    }
}

/// The status of every execution of the first tenant's, as the API shows it.
async fn statuses(cell: &Cell) -> BTreeMap<Uuid, String> {
    let (mut statuses, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = cell.get(&format!("/executions?limit=1000{cursor}"), &cell.tenant).await.ok();
        for execution in page["items"].as_array().expect("a list") {
            let id = text(&execution["id"]).parse().expect("an id");
            statuses.insert(id, text(&execution["status"]));
        }
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return statuses,
        }
    }
}

type Rule = (&'static str, fn(&Execution) -> bool);

/// What must hold of each execution by itself.
const RULES: [Rule; 7] = [
    ("every execution reaches one final state", |execution| {
        let is_final = |status: &str| ["SUCCEEDED", "FAILED", "CANCELLED"].contains(&status);
        let ends: Vec<_> = execution.attempts.iter().filter(|attempt| is_final(&attempt.status)).collect();
        is_final(&execution.status) && ends.len() == 1 && ends[0].status == execution.status
    }),
    ("nothing follows the final state", |execution| {
        let last = execution.attempts.last();
        last.is_some_and(|last| !["PENDING", "RETRYING"].contains(&last.status.as_str()))
    }),
    ("attempts are numbered from 1 without a gap", |execution| {
        let numbers = execution.attempts.iter().map(|attempt| attempt.number).filter(|number| *number > 0);
        (1..).zip(numbers).all(|(place, number)| place == number)
    }),
    ("no two leases overlap", |execution| {
        let leases: BTreeSet<_> = execution.attempts.iter().filter_map(|attempt| attempt.lease_id).collect();
        let held = execution.attempts.iter().filter(|attempt| attempt.lease_id.is_some()).count();
        let in_turn = execution
            .attempts
            .windows(2)
            .all(|pair| pair[1].started_at.is_none_or(|started| started >= pair[0].finished_at));
        leases.len() == held && in_turn
    }),
    ("every spent try has its attempt, and no more are spent than allowed", |execution| {
        let mut spent = 0;
        execution.attempts.iter().all(|attempt| {
            spent += i32::from(attempt.number > 0 && attempt.outcome != "released");
            attempt.tries == spent && spent <= execution.max_attempts
        })
    }),
    ("an attempt is started once, and only if it was leased", |execution| {
        let started: BTreeSet<_> = execution.started.iter().collect();
        let leased: BTreeSet<_> = execution.attempts.iter().map(|attempt| &attempt.number).collect();
        started.len() == execution.started.len() && started.is_subset(&leased)
    }),
    ("what is reported as succeeded was done", |execution| {
        let succeeded = execution.attempts.iter().filter(|attempt| attempt.outcome == "succeeded");
        succeeded.map(|attempt| attempt.number).all(|number| execution.finished.contains(&number))
    }),
];
