//! A password for RDS that is a signature: good for fifteen minutes, made without asking anybody.

use super::{Error, Signer, credentials, region};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings};
use std::time::Duration;

/// How long RDS takes a token to be good; only logging in needs one.
const GOOD_FOR: Duration = Duration::from_secs(900);

/// The token with which this user may log in at this host and port, and nowhere else.
pub(crate) async fn token(host: &str, port: u16, user: &str) -> Result<String, Error> {
    let credentials = credentials::current().await?;
    let signer = Signer { service: "rds-db", region: &region()?, credentials, at: crate::wall_clock() };
    token_by(&signer, host, port, user)
}

fn token_by(signer: &Signer<'_>, host: &str, port: u16, user: &str) -> Result<String, Error> {
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(GOOD_FOR);
    let authority = format!("{host}:{port}");
    let mut token = format!("{authority}/?Action=connect&DBUser={}", encode(user));
    let headers = [("host", authority.as_str())].into_iter();
    let request = SignableRequest::new("GET", format!("https://{token}"), headers, SignableBody::Bytes(&[]))
        .map_err(|error| Error::Setup(error.to_string()))?;
    for (name, value) in signer.sign(request, settings)?.params() {
        token.extend(["&", name, "=", &encode(value)]);
    }
    Ok(token)
}

/// Every byte but the unreserved ones of RFC 3986 in hex, as signatures want it.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::{Signer, token_by};
    use aws_credential_types::Credentials;
    use std::collections::BTreeSet;
    use std::time::{Duration, SystemTime};

    /// What botocore's `generate_db_auth_token` makes of the same at the same time.
    const KNOWN: &str = "db.example.eu-west-1.rds.amazonaws.com:5432/?Action=connect&DBUser=job%20plane\
        &X-Amz-Algorithm=AWS4-HMAC-SHA256\
        &X-Amz-Credential=AKIDEXAMPLE%2F20260102%2Feu-west-1%2Frds-db%2Faws4_request\
        &X-Amz-Date=20260102T030405Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host\
        &X-Amz-Security-Token=a%2Fsession%2Btoken%3D%3D\
        &X-Amz-Signature=24c700517ce24671f44fbf0756d0aebf746dccd0ff6185d4f3e333da1f5c239a";

    #[test]
    fn a_token_is_the_one_that_aws_s_own_client_makes() {
        let key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let credentials =
            Credentials::new("AKIDEXAMPLE", key, Some("a/session+token==".to_owned()), None, "test");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let signer = Signer { service: "rds-db", region: "eu-west-1", credentials, at };
        let token = token_by(&signer, "db.example.eu-west-1.rds.amazonaws.com", 5432, "job plane").unwrap();
        let parts = |token: &str| token.split('&').map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(parts(&token), parts(KNOWN));
    }
}
