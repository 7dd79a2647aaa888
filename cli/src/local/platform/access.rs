//! How a platform is reached: its URLs and tokens, made through its own API when there are none that work.

use anyhow::Context;
use jobplane_protocol::{
    CreateKey, CreateTenant, CreateWorkerToken, CreatedKey, CreatedTenant, CreatedWorkerToken, ErrorCode,
    TenantId, TenantPage, Token, TokenKind,
};
use jobplane_worker::{Client, Credential};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// The name of the tenant, of its key and of the worker token that are made here.
const NAME: &str = "dev";

/// Everything that a client needs. What `jobplane dev --json` prints and `dev.json` holds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Access {
    /// Where the API is.
    pub url: String,
    /// Where the database is, its password included.
    pub database_url: String,
    /// The operator's token.
    pub admin_token: String,
    /// The key of the tenant `dev`.
    pub tenant_key: String,
    /// What workers present.
    pub worker_token: String,
}

impl Access {
    /// Takes over the tokens that were kept, as far as this database knows them, and makes the others.
    pub(super) async fn settle(
        url: &str,
        database_url: String,
        admin_token: String,
        kept: Option<Self>,
    ) -> anyhow::Result<Self> {
        let admin = client(url, &admin_token)?;
        let (key, token) = kept.map(|kept| (kept.tenant_key, kept.worker_token)).unzip();
        let tenant_key = match key {
            Some(key) if works(&client(url, &key)?, "/tenant").await? => key,
            _ => tenant_key(&admin).await.context("cannot make a tenant")?,
        };
        let worker_token = match token {
            Some(token) if works(&client(url, &token)?, "/queues").await? => token,
            _ => worker_token(&admin).await.context("cannot make a worker token")?,
        };
        Ok(Self { url: url.to_owned(), database_url, admin_token, tenant_key, worker_token })
    }

    /// A client that speaks as the operator.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub fn admin(&self) -> anyhow::Result<Client> {
        client(&self.url, &self.admin_token)
    }

    /// A client that speaks as the tenant `dev`.
    ///
    /// # Errors
    /// When the client cannot be set up.
    pub fn tenant(&self) -> anyhow::Result<Client> {
        client(&self.url, &self.tenant_key)
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A new operator's token.
pub(super) fn mint_admin(cell: &str) -> String {
    Token::mint(TokenKind::Admin, cell, rand::rng().random()).reveal().to_owned()
}

fn client(url: &str, token: &str) -> anyhow::Result<Client> {
    Ok(Client::new(url, Credential::Value(token.to_owned()))?)
}

/// Whether the token is known to this database.
async fn works(client: &Client, path: &str) -> anyhow::Result<bool> {
    match client.get(path).send_raw().await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.status(), Some(401 | 403)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A key of the tenant, which is made unless this database has it already.
async fn tenant_key(admin: &Client) -> anyhow::Result<String> {
    let tenant = CreateTenant { name: NAME.to_owned(), ..CreateTenant::default() };
    match admin.post("/tenants").json(&tenant).unrepeatable().send::<CreatedTenant>().await {
        Ok(created) => Ok(created.api_key),
        Err(error) if error.code() == Some(ErrorCode::NameTaken) => {
            let path = format!("/tenants/{}/keys", find_tenant(admin).await?);
            let key = CreateKey { name: NAME.to_owned(), expires_at: None };
            Ok(admin.post(path).json(&key).unrepeatable().send::<CreatedKey>().await?.api_key)
        }
        Err(error) => Err(error.into()),
    }
}

async fn find_tenant(admin: &Client) -> anyhow::Result<TenantId> {
    let mut cursor: Option<String> = None;
    loop {
        let mut call = admin.get("/tenants");
        if let Some(cursor) = cursor {
            call = call.query("cursor", cursor);
        }
        let page: TenantPage = call.send().await?;
        if let Some(tenant) = page.items.into_iter().find(|tenant| tenant.name == NAME) {
            return Ok(tenant.id);
        }
        cursor = Some(page.next_cursor.context("the tenant is said to exist, and is in no list")?);
    }
}

async fn worker_token(admin: &Client) -> anyhow::Result<String> {
    let token = CreateWorkerToken { name: NAME.to_owned(), ..CreateWorkerToken::default() };
    let created: CreatedWorkerToken = admin.post("/worker-tokens").json(&token).unrepeatable().send().await?;
    Ok(created.token)
}
