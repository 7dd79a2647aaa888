//! `jobplane whoami`: the tenant that the key speaks for.

use super::tenant::fields;
use crate::session::Session;
use jobplane_protocol::TenantSelf;
use std::process::ExitCode;

pub(super) async fn run(session: &Session) -> anyhow::Result<ExitCode> {
    let me: TenantSelf = session.client.get("/tenant").send().await?;
    let target = &session.target;
    session.output.show(&me, || {
        let count =
            |count: i64| if me.exact { count.to_string() } else { format!("{count}, counted up to 10,000") };
        let mut table = fields(&me.tenant);
        table.field("Running", count(me.running));
        table.field("Waiting", count(me.waiting));
        table.field("Delayed", count(me.delayed));
        table.field("URL", format!("{} (from {})", target.url, target.url_origin));
        table.field("Key", format!("from {}", target.token_origin));
        table.render(&session.output)
    })?;
    Ok(ExitCode::SUCCESS)
}
