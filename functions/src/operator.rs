//! Who the operator is: a token of the settings, or of a secret that may change while a copy is warm.

use crate::aws::Secret;
use crate::request::TokenHash;
use crate::{Config, Error};
use jobplane_protocol::{Token, TokenKind};
use std::time::Duration;

/// How long a token that is no longer in the secret may still be taken.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// How old the secret may be when somebody is refused by it: a new token counts after so long at the latest.
const REFUSED_AGE: Duration = Duration::from_secs(10);

pub(crate) enum Operator {
    Nobody,
    Known(TokenHash),
    Kept {
        secret: Secret,
        /// What stands before 64 hex digits that are the whole secret.
        prefix: String,
    },
}

impl Operator {
    /// As the settings have it. A secret is read when somebody says to be the operator.
    pub(crate) fn of(config: &Config) -> Result<Self, Error> {
        let prefix = format!("{}{}_", TokenKind::Admin.prefix(), config.cell);
        match (&config.admin_token, &config.admin_token_secret) {
            (Some(text), _) => hash(text, &prefix)
                .map(Self::Known)
                .ok_or(Error::Setup("JOBPLANE_ADMIN_TOKEN must look like jp_admin_CELL_ and 64 hex digits")),
            (None, Some(name)) => Ok(Self::Kept { secret: Secret::of(name), prefix }),
            (None, None) => Ok(Self::Nobody),
        }
    }

    /// Whether this is the operator's token. Hashes are compared, so the time it takes tells nothing.
    pub(crate) async fn check(&self, token: &Token) -> Result<(), Error> {
        let is_operator = match self {
            Self::Nobody => false,
            Self::Known(known) => *known == TokenHash::of(token),
            Self::Kept { secret, prefix } => {
                is_in(secret, prefix, token, KEPT_FOR).await?
                    || is_in(secret, prefix, token, REFUSED_AGE).await?
            }
        };
        if is_operator { Ok(()) } else { Err(Error::unauthorized()) }
    }
}

async fn is_in(secret: &Secret, prefix: &str, token: &Token, max_age: Duration) -> Result<bool, Error> {
    let text = secret.text(max_age).await?;
    let known = hash(&text, prefix).ok_or(Error::Setup(
        "JOBPLANE_ADMIN_TOKEN_SECRET must hold jp_admin_CELL_ and 64 hex digits, or the digits",
    ))?;
    Ok(known == TokenHash::of(token))
}

/// The hash of an operator's token, or of one that this prefix makes of its digits.
fn hash(text: &str, prefix: &str) -> Option<TokenHash> {
    let text = text.trim();
    let token = Token::parse(text).or_else(|| Token::parse(&format!("{prefix}{text}")))?;
    (token.kind() == TokenKind::Admin).then(|| TokenHash::of(&token))
}
