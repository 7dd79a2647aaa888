//! The history check: from when every lease's beginning and end were committed, how many ran at once.

use crate::{Cell, connect};

/// A lease begins when its dequeue is committed and ends when its attempt is. Commit times order what saw what; the times
/// in the rows are those at which the statements began, and may overlap where the leases did not.
const LEASES: &str = "
  create temporary table history as
  select e.tenant_id, e.job_id, pg_xact_commit_timestamp(d.began) as began, a.ended
  from (
    select execution_id, lease_id, pg_xact_commit_timestamp(xmin) as ended from attempts where lease_id is not null
    union all
    select execution_id, lease_id, 'infinity' from leases
  ) a
  join (select lease_id, xmin as began from dequeues) d using (lease_id)
  join executions e on e.id = a.execution_id";

/// Instants, out of all at which a lease began, at which one tenant or one job had more than it may; and how many tenants
/// had as many as they or their job may.
const COUNTED: &str = "
  with changes as (
    select tenant_id, job_id, began as at, 1 as step from history
    union all
    select tenant_id, job_id, ended, -1 from history
  ),
  running as (
    select c.*, sum(step) over (partition by tenant_id order by at, step rows unbounded preceding) as of_tenant,
      sum(step) over (partition by job_id order by at, step rows unbounded preceding) as of_job
    from changes c
  )
  select count(*) filter (where r.of_tenant > t.max_running or r.of_job > j.max_running),
    count(distinct r.tenant_id) filter (where r.of_tenant = t.max_running or r.of_job = j.max_running)
  from running r join tenants t on t.id = r.tenant_id join jobs j on j.id = r.job_id
  where r.step = 1";

/// What the history of one cell says.
pub(super) struct History {
    /// Leases.
    pub(super) leases: i64,
    /// Instants at which there were more than a limit allows.
    pub(super) above: i64,
    /// Tenants that had as many as they may at some instant: the check sees what runs at once.
    pub(super) reached: i64,
}

impl History {
    /// Reads it; nothing may be running meanwhile.
    pub(super) async fn of(cell: &Cell) -> Self {
        let db = connect(&cell.database_url).await;
        // The database is set for statements that walk an index; these read everything.
        db.batch_execute("set enable_seqscan = on; set enable_bitmapscan = on").await.expect("it can be set");
        db.batch_execute(LEASES).await.expect("the history is read");
        let count = async |sql: &str| -> i64 { db.query_one(sql, &[]).await.expect("it is counted").get(0) };
        let leases = count("select count(*) from history").await;
        let sound = count("select count(*) from history where began <= ended").await;
        assert_eq!(sound, leases, "the time of every commit is known");
        let ended = count("select count(*) from attempts where lease_id is not null").await;
        assert!(leases >= ended, "every attempt has its dequeue");
        let counted = db.query_one(COUNTED, &[]).await.expect("it is counted");
        Self { leases, above: counted.get(0), reached: counted.get(1) }
    }
}
