//! From request to answer. A client's connection has one connection to the process, which it keeps between requests
//! as the client keeps its own: so their number is bounded by that of clients, and one that is busy keeps no other
//! waiting. Both are driven by one task.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::{Mutex, PoisonError},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Body as _, Incoming},
    client::conn::http1,
    http::{request::Parts, uri::PathAndQuery},
};
use hyper_util::rt::TokioIo;
use mhnos_process::{DialError, Pid, Process};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Body, Client, Patience, Previews,
    body::{Moved, Passed, Upload},
    headers::{self, Names, toward_client, toward_process},
    judge::judge,
    name::Name,
    page::{self, Nothing},
    patience::InUse,
    tunnel::Tunnel,
    turns::in_turns,
};
use crate::{
    limits::{MAX_PREVIEW_HEADERS, PREVIEW_ANSWER, PREVIEW_BUFFER, PREVIEW_REUSE},
    places::Place,
};

/// What moves a connection to a process.
type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The exchanges of one client's connection, one after the other.
#[derive(Debug)]
pub(crate) struct Exchanges {
    patience: Patience,
    tunnel: Tunnel,
    kept: Mutex<Option<Upstream>>,
    drivers: mpsc::Sender<Driver>,
    driven: Mutex<Option<mpsc::Receiver<Driver>>>,
}

/// A connection to a process.
#[derive(Debug)]
struct Upstream {
    to: (Pid, u16),
    sender: http1::SendRequest<Upload>,
    place: Place<Pid>,
}

impl Exchanges {
    pub(crate) fn new() -> Self {
        // One is on its way at most: a client has one connection to a process at a time.
        let (drivers, driven) = mpsc::channel(1);
        Self {
            patience: Patience::new(),
            tunnel: Tunnel::default(),
            kept: Mutex::default(),
            drivers,
            driven: Mutex::new(Some(driven)),
        }
    }

    /// Runs the HTTP side of the client's connection, and what it has become after that. `None` if it was cut
    /// because it took too long. To be called once.
    pub(crate) async fn beside<T>(&self, http: impl Future<Output = T>) -> Option<T> {
        let mut driven = self.driven.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let (mut http, mut over) = (pin!(http), pin!(self.patience.over()));
        let mut driver: Option<Driver> = None;
        let done = in_turns(async {
            loop {
                tokio::select! {
                    biased;
                    done = &mut http => break Some(done),
                    Some(new) = driven.recv() => driver = Some(new),
                    () = drive(&mut driver), if driver.is_some() => driver = None,
                    () = &mut over => break None,
                }
            }
        })
        .await?;
        // The process's end is handed over by its driver.
        let mut driver = driver.filter(|_| self.tunnel.is_open());
        let tunnel = async {
            if let Err(error) = self.tunnel.run().await {
                tracing::debug!(%error, "a tunnel broke");
            }
        };
        tokio::join!(tunnel, drive(&mut driver));
        Some(done)
    }

    /// Whether it has been a preview's.
    pub(crate) fn served(&self) -> bool {
        self.patience.was_used()
    }

    pub(super) async fn answer(
        &self,
        previews: &Previews,
        name: &Name,
        request: Request<Incoming>,
        client: Client,
        turn_away: impl Fn(&str),
    ) -> Response<Body> {
        let in_use = self.patience.in_use();
        let person = page::is_for_a_person(request.headers());
        match self.pass(previews, name, request, client, in_use).await {
            Ok(response) => response,
            Err(why) => {
                tracing::debug!(pid = name.pid, port = name.port, ?why, peer = %client.peer, "no preview");
                match &why {
                    Nothing::Refused(why) => turn_away(why),
                    // Somebody guesses, or has the name of one that has ended or was renamed.
                    Nothing::Unknown if previews.is_keyed() => turn_away("No preview has this name."),
                    _ => {}
                }
                page::nothing(&why, name, person)
            }
        }
    }

    async fn pass(
        &self,
        previews: &Previews,
        name: &Name,
        mut request: Request<Incoming>,
        client: Client,
        in_use: InUse,
    ) -> Result<Response<Body>, Nothing> {
        let page = judge(&request, &previews.door);
        let page = page.map_err(|refusal| Nothing::Refused(refusal.to_string()))?;
        let process = previews.process(name).ok_or(Nothing::Unknown)?;
        let names = Names::of(request.headers(), name.port, client.secure);
        let upgrades = headers::upgrade(request.headers()).is_some();
        let client_end = upgrades.then(|| hyper::upgrade::on(&mut request));
        previews.keep_secrets(request.headers_mut());
        toward_process(request.headers_mut(), &names, page, client, name.port);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.version_mut() = Version::HTTP_11;

        let (mut response, upstream) = self.ask(previews, &process, name, request).await?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(upstream);
        // What the process spoke ends here: an old answer is a new one to the client.
        *response.version_mut() = Version::HTTP_11;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let process_end = switched.then(|| hyper::upgrade::on(&mut response));
        toward_client(response.headers_mut(), &names, previews.is_keyed(), &previews.framers);
        match (process_end, client_end) {
            (None, _) => Ok(response.map(|body| Body::Right(Passed { body: Some(body), witness: in_use }))),
            (Some(process), Some(client)) => {
                self.tunnel.open(client, process);
                Ok(response.map(|_| Body::Left(Full::default())))
            }
            (Some(_), None) => Err(Nothing::Broken("it changes to a protocol nobody asked for".to_owned())),
        }
    }

    /// Sends a request, and once more if the connection that was kept turns out to be closed by the process.
    async fn ask(
        &self,
        previews: &Previews,
        process: &Process,
        name: &Name,
        request: Request<Incoming>,
    ) -> Result<(Response<Incoming>, Upstream), Nothing> {
        let (mut parts, body) = request.into_parts();
        // What was sent may have been read, so only what changes nothing is sent again.
        let harmless = matches!(parts.method, Method::GET | Method::HEAD) && body.is_end_stream();
        let moved = Moved::now();
        let mut body = Some(body);
        let mut place = None;
        if let Some(mut kept) = self.kept(name).await {
            let spare = harmless.then(|| parts.clone());
            let request = assemble(parts, body, &moved);
            match answered(kept.sender.try_send_request(request), &moved).await {
                None => return Err(Nothing::Silent),
                Some(Ok(response)) => return Ok((response, kept)),
                Some(Err(mut error)) => match (error.take_message(), spare) {
                    (Some(unsent), _) => {
                        let (head, upload) = unsent.into_parts();
                        (parts, body) = (head, upload.body);
                    }
                    (None, Some(spare)) => (parts, body) = (spare, None),
                    (None, None) => return Err(broken(error.error())),
                },
            }
            place = Some(kept.place);
        }
        let mut fresh = self.connect(previews, process, name, place).await?;
        match answered(fresh.sender.send_request(assemble(parts, body, &moved)), &moved).await {
            None => Err(Nothing::Silent),
            Some(Ok(response)) => Ok((response, fresh)),
            Some(Err(error)) => Err(broken(&error)),
        }
    }

    /// The connection that was kept, if it leads there and can be used.
    async fn kept(&self, name: &Name) -> Option<Upstream> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut kept = kept.filter(|kept| kept.to == (name.pid, name.port))?;
        let ready = timeout(PREVIEW_REUSE, kept.sender.ready()).await;
        matches!(ready, Ok(Ok(()))).then_some(kept)
    }

    async fn connect(
        &self,
        previews: &Previews,
        process: &Process,
        name: &Name,
        place: Option<Place<Pid>>,
    ) -> Result<Upstream, Nothing> {
        if !previews.room.are_left() {
            return Err(Nothing::Full);
        }
        let place = place.or_else(|| previews.places.take(name.pid).ok()).ok_or(Nothing::Full)?;
        let stream = previews.processes.dial(process, name.port).await.map_err(undialled)?;
        let failed = |error: io::Error| Nothing::Broken(error.to_string());
        stream.set_nodelay(true).map_err(failed)?;
        let handshake = http1::Builder::new()
            .max_buf_size(PREVIEW_BUFFER)
            .max_headers(MAX_PREVIEW_HEADERS)
            .handshake(TokioIo::new(stream));
        let (sender, connection) = handshake.await.map_err(|error| broken(&error))?;
        let driver = async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to a process broke");
            }
        };
        // Whoever would run it is gone only if this is, too.
        let _ = self.drivers.send(Box::pin(driver)).await;
        Ok(Upstream { to: (name.pid, name.port), sender, place })
    }
}

async fn drive(driver: &mut Option<Driver>) {
    if let Some(driver) = driver {
        driver.await;
    }
}

fn assemble(parts: Parts, body: Option<Incoming>, moved: &Moved) -> Request<Upload> {
    Request::from_parts(parts, Passed { body, witness: moved.clone() })
}

/// Waits for an answer as long as the upload moves on, and [`PREVIEW_ANSWER`] more.
async fn answered<F: Future>(answer: F, moved: &Moved) -> Option<F::Output> {
    let mut answer = pin!(answer);
    loop {
        let until = moved.last() + PREVIEW_ANSWER;
        if until <= Instant::now() {
            return None;
        }
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            () = sleep_until(until) => {}
        }
    }
}

fn undialled(error: DialError) -> Nothing {
    match error {
        DialError::Gone => Nothing::Unknown,
        DialError::Refused => Nothing::Closed,
        DialError::Busy => Nothing::Full,
        DialError::Timeout => Nothing::Silent,
        DialError::Failed(error) => Nothing::Broken(error.to_string()),
    }
}

/// In the words of the cause, where there is one: "connection error" alone helps nobody.
fn broken(error: &hyper::Error) -> Nothing {
    let cause = std::error::Error::source(error).map(|cause| format!(" ({cause})")).unwrap_or_default();
    Nothing::Broken(format!("{error}{cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preview::body::Witness;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_while_the_upload_moves_and_no_longer() {
        let moved = Moved::now();
        let begun = Instant::now();
        let upload = async {
            for _ in 0..3 {
                let _ = timeout(PREVIEW_ANSWER / 2, std::future::pending::<()>()).await;
                moved.moved();
            }
            std::future::pending::<()>().await;
        };
        assert!(answered(upload, &moved).await.is_none());
        assert_eq!(begun.elapsed(), PREVIEW_ANSWER / 2 * 3 + PREVIEW_ANSWER);
        assert_eq!(answered(async { 7 }, &Moved::now()).await, Some(7));
    }
}
