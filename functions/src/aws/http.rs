//! One request to AWS over a connection of its own, within a limit of time and size.

use super::{CALL_LIMIT, Error};
use crate::database::tls;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, http::HeaderValue};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The most bytes of an answer; a secret has 64 KB at most.
const ANSWER_BYTES: usize = 256 << 10;

/// Sends a request whose address is whole, and answers the body of a good answer.
pub(super) async fn send(who: &str, request: Request<Bytes>) -> Result<Bytes, Error> {
    tokio::time::timeout(CALL_LIMIT, exchange(who, request))
        .await
        .map_err(|_| Error::away(who, format!("no answer in {} s", CALL_LIMIT.as_secs())))?
}

async fn exchange(who: &str, mut request: Request<Bytes>) -> Result<Bytes, Error> {
    let address = request.uri().clone();
    let host = address.host().ok_or_else(|| Error::away(who, format!("{address} names no host")))?;
    let authority = address.authority().map_or(host, |authority| authority.as_str());
    let value = HeaderValue::from_str(authority).map_err(|error| Error::away(who, error))?;
    request.headers_mut().insert(HOST, value);
    let encrypted = address.scheme_str() != Some("http");
    let port = address.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(|error| Error::away(who, error))?;
    stream.set_nodelay(true).map_err(|error| Error::away(who, error))?;
    if !encrypted {
        return over(who, stream, request).await;
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|error| Error::away(who, error))?;
    let connector = TlsConnector::from(Arc::new(tls::client(None).map_err(|error| Error::away(who, error))?));
    let stream = connector.connect(name, stream).await.map_err(|error| Error::away(who, error))?;
    over(who, stream, request).await
}

async fn over(
    who: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Bytes>,
) -> Result<Bytes, Error> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| Error::away(who, error))?;
    // Only an address' path goes into the first line of a request that is not a proxy's.
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse();
    parts.uri = path.map_err(|error| Error::away(who, error))?;
    let answered = async {
        let answer = sender
            .send_request(Request::from_parts(parts, Full::new(body)))
            .await
            .map_err(|error| Error::away(who, error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| Error::away(who, error))?.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        // It names what was asked for and why not, never a secret.
        let said = String::from_utf8_lossy(&body).chars().take(300).collect();
        Err(Error::Refused(who.to_owned(), status.as_u16(), said))
    };
    tokio::pin!(answered);
    tokio::select! {
        answered = &mut answered => answered,
        // The connection ends by itself once the answer is whole; what came of it is then in `answered`.
        _ = connection => answered.await,
    }
}
