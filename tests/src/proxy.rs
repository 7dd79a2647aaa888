//! A proxy that does to requests what networks do: loses them, loses their answers, delays, repeats and resets.

use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Either, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::io::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The longest that a delayed request is held back.
const LONGEST_DELAY: Duration = Duration::from_millis(500);

/// How many of a hundred requests meet which fault; one request meets at most one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// Never forwarded; the connection is closed.
    pub drop_before: u32,
    /// Forwarded and served; the connection is closed instead of the answer.
    pub drop_after: u32,
    /// Forwarded late, up to half a second.
    pub delay: u32,
    /// Forwarded twice at once; the second answer is given.
    pub duplicate: u32,
    /// Forwarded and served; the connection is reset in the middle of the answer.
    pub reset: u32,
}

/// What befalls one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    DropBefore,
    DropAfter,
    Delay(Duration),
    Duplicate,
    Reset,
}

impl Faults {
    fn draw(self, dice: &mut StdRng) -> Fault {
        let delay = dice.random_range(Duration::ZERO..LONGEST_DELAY);
        let mut drawn = dice.random_range(0..100);
        let shares = [
            (self.drop_before, Fault::DropBefore),
            (self.drop_after, Fault::DropAfter),
            (self.delay, Fault::Delay(delay)),
            (self.duplicate, Fault::Duplicate),
            (self.reset, Fault::Reset),
        ];
        for (share, fault) in shares {
            if drawn < share {
                return fault;
            }
            drawn -= share;
        }
        Fault::None
    }
}

/// What befalls every request for the time being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// What its faults say.
    Open,
    /// It is lost, like those before.
    Away,
    /// If its path ends so it is served, and its answer kept back.
    Holding(&'static str),
}

/// A running proxy; it ends with the runtime that it was started on.
pub struct Proxy {
    /// Where it listens.
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    faults: Faults,
    dice: Mutex<StdRng>,
    mode: watch::Sender<Mode>,
    kept_back: watch::Sender<usize>,
    client: reqwest::Client,
    forwarded: AtomicU64,
    faulty: AtomicU64,
}

impl Proxy {
    /// Starts a proxy before the target, such as `http://127.0.0.1:8080`. The same seed draws the same faults in the
    /// order in which requests arrive.
    pub async fn start(target: &str, faults: Faults, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            faults,
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            mode: watch::Sender::new(Mode::Open),
            kept_back: watch::Sender::new(0),
            client: reqwest::Client::new(),
            forwarded: AtomicU64::new(0),
            faulty: AtomicU64::new(0),
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(serving.clone(), stream));
            }
        });
        Self { url, shared }
    }

    /// Loses every request until [`Self::open`].
    pub fn go_away(&self) {
        self.shared.mode.send_replace(Mode::Away);
    }

    /// Serves requests of paths that end so, and keeps their answers back until [`Self::open`].
    pub fn hold(&self, path_end: &'static str) {
        self.shared.mode.send_replace(Mode::Holding(path_end));
    }

    /// Waits until an answer is kept back.
    pub async fn holds(&self) {
        let mut kept_back = self.shared.kept_back.subscribe();
        kept_back.wait_for(|&count| count > 0).await.expect("the proxy runs");
    }

    /// Ends what was begun with [`Self::go_away`] or [`Self::hold`].
    pub fn open(&self) {
        self.shared.mode.send_replace(Mode::Open);
    }

    /// Requests that the target has served, those of a duplicate both.
    pub fn forwarded(&self) -> u64 {
        self.shared.forwarded.load(Ordering::Relaxed)
    }

    /// Requests that met a fault.
    pub fn faulty(&self) -> u64 {
        self.shared.faulty.load(Ordering::Relaxed)
    }
}

type Body = Either<Full<Bytes>, StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Error>>>>;

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let reset = Arc::new(AtomicBool::new(false));
    let service =
        hyper::service::service_fn(|request| Box::pin(shared.clone().answer(request, reset.clone())));
    let mut connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A fault ends it with an error, which is what it is there for.
    let ended = std::future::poll_fn(|context| connection.poll_without_shutdown(context)).await;
    if ended.is_err() && reset.load(Ordering::Relaxed) {
        // With no time to linger, closing sends RST instead of FIN.
        connection.into_parts().io.into_inner().set_zero_linger().expect("an open socket");
    }
}

impl Shared {
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        reset: Arc<AtomicBool>,
    ) -> Result<Response<Body>, Error> {
        let mut mode = self.mode.subscribe();
        let fault = match *mode.borrow_and_update() {
            Mode::Away => Fault::DropBefore,
            _ => self.faults.draw(&mut self.dice.lock().expect("no holder panics")),
        };
        self.faulty.fetch_add((fault != Fault::None).into(), Ordering::Relaxed);
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(Error::other)?.to_bytes();
        let forward = || self.forward(&head, body.clone());
        match fault {
            Fault::DropBefore => return Err(Error::other("lost on its way")),
            Fault::Delay(wait) => tokio::time::sleep(wait).await,
            Fault::None | Fault::DropAfter | Fault::Duplicate | Fault::Reset => {}
        }
        if fault == Fault::Duplicate {
            let (first, second) = tokio::join!(forward(), forward());
            first?;
            return Ok(second?.map(|bytes| Either::Left(Full::new(bytes))));
        }
        let answer = forward().await?;
        let held = |mode: &Mode| matches!(mode, Mode::Holding(end) if head.uri.path().ends_with(end));
        if held(&mode.borrow()) {
            self.kept_back.send_modify(|count| *count += 1);
            mode.wait_for(|mode| !held(mode)).await.map_err(Error::other)?;
        }
        match fault {
            Fault::DropAfter => Err(Error::other("its answer is lost")),
            Fault::Reset => {
                reset.store(true, Ordering::Relaxed);
                Ok(answer.map(|bytes| half(&bytes)))
            }
            _ => Ok(answer.map(|bytes| Either::Left(Full::new(bytes)))),
        }
    }

    async fn forward(
        &self,
        head: &hyper::http::request::Parts,
        body: Bytes,
    ) -> Result<Response<Bytes>, Error> {
        let url = format!("{}{}", self.target, head.uri);
        let request =
            self.client.request(head.method.clone(), url).headers(end_to_end(&head.headers)).body(body);
        let answer = request.send().await.map_err(Error::other)?;
        let mut response = Response::new(Bytes::new());
        (*response.status_mut(), *response.headers_mut()) = (answer.status(), end_to_end(answer.headers()));
        *response.body_mut() = answer.bytes().await.map_err(Error::other)?;
        self.forwarded.fetch_add(1, Ordering::Relaxed);
        Ok(response)
    }
}

/// The headers that are not about one connection.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for own in [CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING] {
        headers.remove(own);
    }
    headers
}

/// The first half of a body, and then an error.
fn half(bytes: &Bytes) -> Body {
    let first = Ok(Frame::data(bytes.slice(..bytes.len() / 2)));
    Either::Right(StreamBody::new(stream::iter([first, Err(Error::other("reset"))]).boxed()))
}
