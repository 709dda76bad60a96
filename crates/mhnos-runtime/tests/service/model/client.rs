//! One connection of the model: what it views and how far it has got.

use std::collections::{BTreeMap, HashMap};

use mhnos_testing::{Server, Wire, WireOptions};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::oracle::{Kind, Oracle};
use crate::viewers::base64;

/// What text has in the place of what is no character.
const CUT_OFF: &[u8] = "\u{fffd}".as_bytes();

/// Every process by its pid.
pub(super) type Oracles = BTreeMap<u64, Oracle>;

/// What a request was for.
#[derive(Clone, Copy, Debug)]
enum Asked {
    /// The answer is enough.
    Question,
    Spawn {
        kind: Kind,
        number: u64,
    },
    Resize {
        pid: u64,
        size: (u64, u64),
    },
    /// Once acknowledged, so many bytes of stdout must come.
    Write {
        pid: u64,
        bytes: usize,
    },
    Close {
        pid: u64,
    },
    Attach {
        pid: u64,
    },
    Detach {
        pid: u64,
    },
    Kill {
        pid: u64,
    },
}

/// A process as this client views it.
#[derive(Debug, Default)]
struct View {
    position: u64,
    /// Attached anew, from here: the old view's frames may still come before.
    anew: Option<u64>,
    exited: bool,
    /// The last size of its terminal that was told.
    size: Option<(u64, u64)>,
}

/// The connection is over.
#[derive(Debug)]
pub(super) struct Closed;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    wire: Wire,
    binary: bool,
    views: HashMap<u64, View>,
    asked: BTreeMap<u64, Asked>,
    next_id: u64,
    /// The last answer that somebody waits for.
    answer: Option<(u64, Value)>,
    /// Gaps it was told of.
    pub(super) gaps: usize,
    /// Those that are to be compared with where their logs end: process, beginning, end.
    pub(super) unchecked: Vec<(u64, u64, u64)>,
    /// Steps for which it reads nothing.
    pub(super) asleep: usize,
}

impl Client {
    pub(super) async fn connect(server: &Server, binary: bool) -> Self {
        let options = if binary { WireOptions::binary() } else { WireOptions::modern() };
        let wire = Wire::connect_as(server.address(), options).await;
        let (views, asked) = (HashMap::new(), BTreeMap::new());
        Self {
            wire,
            binary,
            views,
            asked,
            next_id: 1,
            answer: None,
            gaps: 0,
            unchecked: Vec::new(),
            asleep: 0,
        }
    }

    /// The same client on a new connection: it goes on where it was with everything it viewed.
    pub(super) async fn resume(self, server: &Server) -> Self {
        let mut again = Self::connect(server, self.binary).await;
        again.next_id = self.next_id;
        (again.gaps, again.unchecked) = (self.gaps, self.unchecked);
        for (pid, view) in self.views {
            // Of an attach that was not answered the client knows only that it wanted to begin there.
            let after = if view.exited { view.position } else { view.anew.unwrap_or(view.position) };
            _ = again.attach(pid, after).await;
        }
        again
    }

    pub(super) fn viewed(&self) -> impl Iterator<Item = (u64, u64, bool)> {
        self.views
            .iter()
            .filter(|(_, view)| view.anew.is_none())
            .map(|(pid, view)| (*pid, view.position, view.exited))
    }

    /// The size of a terminal it was told last.
    pub(super) fn size(&self, pid: u64) -> Option<(u64, u64)> {
        self.views[&pid].size
    }

    /// Whether an attach has not been answered yet.
    pub(super) fn attaching(&self, pid: u64) -> bool {
        self.asked.values().any(|asked| matches!(asked, Asked::Attach { pid: whom } if *whom == pid))
    }

    async fn ask(&mut self, mut message: Value, asked: Asked) -> Result<u64, Closed> {
        let id = self.next_id;
        self.next_id += 1;
        message["id"] = id.into();
        self.asked.insert(id, asked);
        self.wire.send_message(Message::text(message.to_string())).await.map_err(|_| Closed)?;
        Ok(id)
    }

    /// Returns the pid.
    pub(super) async fn spawn(&mut self, kind: Kind, oracles: &mut Oracles) -> Result<u64, Closed> {
        let number = oracles.len() as u64;
        let mut spawn = kind.spawn(number);
        spawn["type"] = "spawn".into();
        let id = self.ask(spawn, Asked::Spawn { kind, number }).await?;
        let spawned = self.answer(id, oracles).await?;
        Ok(spawned["pid"].as_u64().expect("a number"))
    }

    pub(super) async fn resize(&mut self, pid: u64, size: (u64, u64)) -> Result<(), Closed> {
        let message = json!({"type": "resize", "pid": pid, "cols": size.0, "rows": size.1});
        self.ask(message, Asked::Resize { pid, size }).await?;
        Ok(())
    }

    pub(super) async fn attach(&mut self, pid: u64, after: u64) -> Result<(), Closed> {
        match self.views.get_mut(&pid) {
            Some(view) => view.anew = Some(after),
            None => drop(self.views.insert(pid, View { position: after, ..View::default() })),
        }
        self.ask(json!({"type": "attach", "pid": pid, "after": after}), Asked::Attach { pid }).await?;
        Ok(())
    }

    pub(super) async fn detach(&mut self, pid: u64) -> Result<(), Closed> {
        self.ask(json!({"type": "detach", "pid": pid}), Asked::Detach { pid }).await?;
        Ok(())
    }

    /// Writes the text, after which so many bytes of stdout must come.
    pub(super) async fn write(&mut self, pid: u64, text: &str, bytes: usize) -> Result<(), Closed> {
        let message = json!({"type": "write", "pid": pid, "data": text});
        self.ask(message, Asked::Write { pid, bytes }).await?;
        Ok(())
    }

    /// The same in two pieces, the first of so many bytes, which may end within a character.
    pub(super) async fn write_in_two(
        &mut self,
        pid: u64,
        text: &str,
        bytes: usize,
        cut: usize,
    ) -> Result<(), Closed> {
        let (first, second) = text.as_bytes().split_at(cut);
        for (piece, bytes) in [(first, bytes - second.len()), (second, bytes)] {
            let message = json!({"type": "write", "pid": pid, "encoding": "base64", "data": base64(piece)});
            self.ask(message, Asked::Write { pid, bytes }).await?;
        }
        Ok(())
    }

    pub(super) async fn close_stdin(&mut self, pid: u64) -> Result<(), Closed> {
        self.ask(json!({"type": "closeStdin", "pid": pid}), Asked::Close { pid }).await?;
        Ok(())
    }

    pub(super) async fn kill(&mut self, pid: u64, signal: &str) -> Result<(), Closed> {
        self.ask(json!({"type": "kill", "pid": pid, "signal": signal}), Asked::Kill { pid }).await?;
        Ok(())
    }

    /// Takes messages until everything sent before this has been answered, kills apart.
    pub(super) async fn sync(&mut self, oracles: &mut Oracles) -> Result<(), Closed> {
        let ping = self.ask(json!({"type": "ping"}), Asked::Question).await?;
        self.answer(ping, oracles).await?;
        while self.asked.values().any(|asked| !matches!(asked, Asked::Kill { .. })) {
            self.take(oracles).await?;
        }
        Ok(())
    }

    /// Takes messages until all writes have been answered.
    pub(super) async fn acknowledged(&mut self, oracles: &mut Oracles) -> Result<(), Closed> {
        while self.asked.values().any(|asked| matches!(asked, Asked::Write { .. })) {
            self.take(oracles).await?;
        }
        Ok(())
    }

    /// Sends one request of any kind and returns its answer.
    pub(super) async fn request(&mut self, message: Value, oracles: &mut Oracles) -> Result<Value, Closed> {
        let id = self.ask(message, Asked::Question).await?;
        self.answer(id, oracles).await
    }

    async fn answer(&mut self, id: u64, oracles: &mut Oracles) -> Result<Value, Closed> {
        loop {
            if let Some((_, answer)) = self.answer.take_if(|(answered, _)| *answered == id) {
                return Ok(answer);
            }
            self.take(oracles).await?;
        }
    }

    /// Takes one message.
    async fn take(&mut self, oracles: &mut Oracles) -> Result<(), Closed> {
        match self.wire.next_frame().await.ok_or(Closed)? {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).expect("JSON");
                self.told(&message, oracles);
            }
            Message::Binary(frame) => {
                let (header, data) = frame.split_at(16);
                let number = |range: std::ops::Range<usize>| {
                    header[range].iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
                };
                assert!(header[0] == 1 && header[1] <= 2, "{header:?}");
                self.output(oracles, number(4..8), header[1] == 2, number(8..16), data, true);
            }
            _ => {}
        }
        Ok(())
    }

    fn told(&mut self, message: &Value, oracles: &mut Oracles) {
        let pid = message["pid"].as_u64().unwrap_or(0);
        match message["type"].as_str().expect("a type") {
            kind @ ("stdout" | "stderr") => {
                let seq = message["seq"].as_u64().expect("a position");
                let data = message["data"].as_str().expect("text").as_bytes();
                let settled = self.views.get(&pid).filter(|view| view.anew.is_none());
                assert!(settled.is_none_or(|view| view.exited == (message["late"] == true)), "{message}");
                self.output(oracles, pid, kind == "stderr", seq, data, false);
            }
            "size" => {
                let size = message["cols"].as_u64().zip(message["rows"].as_u64());
                self.views.get_mut(&pid).expect("viewed").size = size;
            }
            "gap" => self.gap(pid, &message["from"], &message["to"]),
            "exit" => self.exited(oracles, pid, message),
            _ if message["id"].is_u64() => self.answered(oracles, message),
            other => assert_eq!(other, "connected", "{message}"),
        }
    }

    /// The view, moved to where an attach began if this is the first of it.
    fn view_at(&mut self, pid: u64, from: u64) -> &mut View {
        let view = self.views.get_mut(&pid).unwrap_or_else(|| panic!("output of {pid}, which is not viewed"));
        if (from != view.position || view.exited)
            && let Some(anew) = view.anew.take_if(|anew| *anew == from)
        {
            view.position = anew;
            view.exited = false;
        }
        assert_eq!(from, view.position, "process {pid}: bytes lost or doubled");
        view
    }

    /// Bytes are shown up to each position, text up to the last whole character before it.
    fn output(&mut self, oracles: &mut Oracles, pid: u64, stderr: bool, seq: u64, data: &[u8], bytes: bool) {
        let oracle = oracles.get_mut(&pid).expect("spawned by the model");
        let shown = |position: u64| if bytes { position } else { oracle.shown(position) };
        // What was cut off in a character is shown when it is known that the rest will not come.
        let cut = oracle.kind == Kind::Foreign && (oracle.killed || oracle.unclear) && !bytes;
        let data = Some(data).filter(|_| cut).and_then(|data| data.strip_suffix(CUT_OFF)).unwrap_or(data);
        let begun = shown(seq) - data.len() as u64;
        let late = matches!(oracle.kind, Kind::Lingering(_));
        let view = self.views.get(&pid).unwrap_or_else(|| panic!("output of {pid}, which is not viewed"));
        // Where that was for the viewer: where it is, or where it asked to begin.
        let places = [Some(view.position).filter(|_| late || !view.exited), view.anew, Some(begun)];
        let from =
            places.into_iter().flatten().find(|place| shown(*place) == begun).expect("the last one is");
        let view = self.view_at(pid, from);
        assert!(late || !view.exited, "output of {pid} after its exit");
        view.position = seq;
        oracle.saw(stderr, begun, data).unwrap_or_else(|wrong| panic!("process {pid}: {wrong}"));
    }

    fn gap(&mut self, pid: u64, from: &Value, to: &Value) {
        let (from, to) = (from.as_u64().expect("a position"), to.as_u64().expect("a position"));
        self.gaps += 1;
        self.view_at(pid, from).position = to;
        self.unchecked.push((pid, from, to));
    }

    fn exited(&mut self, oracles: &mut Oracles, pid: u64, exit: &Value) {
        let seq = exit["seq"].as_u64().expect("a position");
        let oracle = oracles.get_mut(&pid).expect("spawned by the model");
        // Whoever begins beyond it is told of it first.
        let begun = self.views[&pid].position;
        let beyond = matches!(oracle.kind, Kind::Lingering(_)) && begun > seq;
        let view = self.view_at(pid, if beyond { begun } else { seq });
        assert!(!view.exited, "two exits of {pid}");
        view.exited = true;
        oracle.exited(exit).unwrap_or_else(|wrong| panic!("process {pid}: {wrong}"));
    }

    fn answered(&mut self, oracles: &mut Oracles, answer: &Value) {
        let id = answer["id"].as_u64().expect("checked by the caller");
        let asked = self.asked.remove(&id).unwrap_or_else(|| panic!("answered twice: {answer}"));
        let (kind, code) = (&answer["type"], &answer["code"]);
        match asked {
            Asked::Question => self.answer = Some((id, answer.clone())),
            Asked::Resize { pid, size } => {
                let oracle = oracles.get_mut(&pid).expect("spawned by the model");
                match kind.as_str() {
                    Some("resized") => oracle.size = Some(size),
                    _ => assert!(oracle.killed, "{asked:?}: {answer}"),
                }
            }
            Asked::Spawn { kind: program, number } => {
                assert_eq!(kind, "spawned", "{answer}");
                let pid = answer["pid"].as_u64().expect("a number");
                assert!(oracles.last_key_value().is_none_or(|(last, _)| *last < pid), "{answer}");
                // Its output comes next.
                oracles.insert(pid, Oracle::new(pid, program, number));
                self.views.insert(pid, View::default());
                self.answer = Some((id, answer.clone()));
            }
            Asked::Write { pid, bytes } => {
                let oracle = oracles.get_mut(&pid).expect("spawned by the model");
                match kind.as_str() {
                    Some("written") => oracle.must_come(bytes),
                    // Whoever is killed may not take it any more.
                    _ => assert!(oracle.killed, "{asked:?}: {answer}"),
                }
            }
            Asked::Close { pid } => {
                // Closed before, perhaps in the name of a bridge that died before it said so.
                let fine = kind == "stdinClosed" || code == "STDIN_CLOSED" || code == "PROCESS_EXITED";
                assert!(fine, "{pid}: {answer}");
            }
            Asked::Attach { pid } => {
                assert_eq!(kind, "attached", "{answer}");
                let seq = answer["seq"].as_u64().expect("a position");
                let view = self.view_at(pid, seq);
                view.exited &= view.anew.take().is_none();
            }
            Asked::Detach { pid } => {
                assert_eq!(kind, "detached", "{answer}");
                self.views.remove(&pid);
            }
            Asked::Kill { pid } => {
                assert_eq!(kind, "killed", "{answer}");
                assert_eq!(answer["ended"], true, "{answer}");
                let told = self.views.get(&pid).is_none_or(|view| view.exited || view.anew.is_some())
                    || self.attaching(pid);
                assert!(told, "{pid}: killed before its exit");
            }
        }
    }
}
