//! What walls cost: the same programs started in each kind of sandbox, without any, by bubblewrap, and directly, in turn.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use mhnos_testing::{Options, Server, Wire, tool};
use serde_json::{Value, json};

use crate::{SERVICE, millis, percentile, percentiles, report, start};

const ROUNDS: usize = 40;

/// Programs of a churn, and how many are under way at once.
const CHURN: usize = 1000;
const AT_ONCE: usize = 20;

/// Processes of a tree that is killed.
const TREE: usize = 100;

/// A program to start, and whether it says something.
struct Program {
    label: &'static str,
    kind: &'static str,
    command: String,
    args: &'static [&'static str],
    speaks: bool,
}

/// How it is started.
enum Way {
    Direct,
    Bubblewrap,
    Service { name: &'static str, wire: Box<Wire>, isolation: &'static str, _server: Box<Server> },
}

/// From asking: to the start, to the first output, to the end.
#[derive(Default)]
struct Times([Vec<Duration>; 3]);

fn programs() -> [Program; 4] {
    let node = tool("node").display().to_string();
    [
        Program { label: "true", kind: "shell", command: "/bin/true".into(), args: &[], speaks: false },
        Program {
            label: "bash",
            kind: "shell",
            command: "/bin/bash".into(),
            args: &["-c", "echo x"],
            speaks: true,
        },
        Program { label: "node", kind: "node", command: node, args: &["-p", "1"], speaks: true },
        Program {
            label: "python",
            kind: "python",
            command: "/usr/bin/python3".into(),
            args: &["-c", "print(1)"],
            speaks: true,
        },
    ]
}

/// A service on this kind of host; see `mhnos_testing::host`.
async fn service(name: &'static str, host: Option<&str>, mode: &str, isolation: &'static str) -> Way {
    let mut options = Options::new(SERVICE).env("MHNOS_LOG_LEVEL", "warn").env("MHNOS_SANDBOX", mode);
    if let Some(host) = host {
        options = options.on(host);
    }
    let server = Server::start(options);
    let wire = Box::new(Wire::connect(server.address()).await);
    Way::Service { name, wire, isolation, _server: Box::new(server) }
}

/// The matrix: programs, ways, and what is waited for.
pub(crate) async fn matrix() {
    let mut ways = vec![Way::Direct];
    if Path::new("/usr/bin/bwrap").exists() {
        ways.push(Way::Bubblewrap);
    } else {
        report("bwrap", "not measured: apt-get install bubblewrap");
    }
    ways.push(service("strict T1, shared", None, "strict", "shared").await);
    ways.push(service("strict T1, private", None, "strict", "private").await);
    ways.push(service("strict T3, shared", Some("one-user"), "strict", "shared").await);
    ways.push(service("none", Some("none"), "none", "shared").await);
    for program in programs() {
        let mut times: Vec<Times> = ways.iter().map(|_| Times::default()).collect();
        for round in 0..ROUNDS {
            // Forwards and backwards: nobody always comes after the same one.
            for step in 0..ways.len() {
                let index = if round % 2 == 0 { step } else { ways.len() - 1 - step };
                ways[index].measure(&program, &mut times[index]).await;
            }
        }
        let mut floors: Vec<Duration> = times[0].0.iter_mut().map(|all| percentile(all, 50)).collect();
        floors[0] = Duration::ZERO;
        for (way, times) in ways.iter().zip(&mut times) {
            let what = ["started", "first output", "exit"];
            for (index, name) in
                what.into_iter().enumerate().filter(|(index, _)| program.speaks || *index != 1)
            {
                let all = &mut times.0[index];
                let middle = percentile(all, 50).as_secs_f64();
                let ratio = match floors[index] {
                    Duration::ZERO => String::new(),
                    floor => format!(", ratio {:.2}", middle / floor.as_secs_f64()),
                };
                let label = format!("{}, {}: {name}", program.label, way.name());
                report(&label, &(percentiles(all) + &ratio));
            }
        }
    }
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Direct => "directly",
            Self::Bubblewrap => "bwrap",
            Self::Service { name, .. } => name,
        }
    }

    async fn measure(&mut self, program: &Program, times: &mut Times) {
        match self {
            Self::Direct => directly(Command::new(&program.command).args(program.args), program, times),
            Self::Bubblewrap => {
                let mut command = Command::new("/usr/bin/bwrap");
                command.args(["--unshare-all", "--die-with-parent", "--new-session", "--ro-bind", "/", "/"]);
                command.args(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--"]);
                directly(command.arg(&program.command).args(program.args), program, times);
            }
            Self::Service { wire, isolation, .. } => through(wire, isolation, program, times).await,
        }
    }
}

fn directly(command: &mut Command, program: &Program, times: &mut Times) {
    let begin = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program is there");
    times.0[0].push(begin.elapsed());
    let mut stdout = child.stdout.take().expect("piped above");
    let read = stdout.read(&mut [0; 16]).expect("its first byte");
    times.0[1].push(begin.elapsed());
    assert!(child.wait().expect("our own child").success() && (read > 0) == program.speaks);
    times.0[2].push(begin.elapsed());
}

async fn through(wire: &mut Wire, isolation: &str, program: &Program, times: &mut Times) {
    let (command, args) = match program.kind {
        "shell" => (program.command.as_str(), program.args),
        _ => (program.args[0], &program.args[1..]),
    };
    let options = json!({"pty": false, "stdin": "null", "isolation": isolation});
    let begin = Instant::now();
    let pid = wire
        .spawn(json!({"processType": program.kind, "command": command, "args": args, "options": options}))
        .await;
    times.0[0].push(begin.elapsed());
    if program.speaks {
        wire.stdout_until(pid, "\n").await;
    }
    times.0[1].push(begin.elapsed());
    let exit = wire.next_where(|value| value["type"] == "exit" && value["pid"] == pid).await;
    times.0[2].push(begin.elapsed());
    assert_eq!(exit["code"], 0, "{exit}");
}

/// Short programs as fast as they go, `AT_ONCE` at a time.
pub(crate) async fn churn() {
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        // A service for each round, which starts so many at once before it paces them.
        ours.push(churn_through(&start()).await);
        floor.push(churn_directly());
    }
    let (ours, floor) = (percentile(&mut ours, 50), percentile(&mut floor, 50));
    let rate = |time: Duration| CHURN as f64 / time.as_secs_f64();
    let figures = format!(
        "{:.0}/s; direct {:.0}/s, ratio {:.2}",
        rate(ours),
        rate(floor),
        floor.as_secs_f64() / ours.as_secs_f64()
    );
    report(&format!("churn, /bin/echo, {AT_ONCE} at a time"), &figures);
}

async fn churn_through(server: &Server) -> Duration {
    let begin = Instant::now();
    let mut lanes: FuturesUnordered<_> = (0..AT_ONCE)
        .map(|_| async {
            let mut wire = Wire::connect(server.address()).await;
            for _ in 0..CHURN / AT_ONCE {
                let spawn: Value = json!({"processType": "shell", "command": "/bin/echo", "args": ["x"],
                    "options": {"pty": false, "stdin": "null"}});
                let pid = wire.spawn(spawn).await;
                assert_eq!(wire.run_to_exit(pid).await.0, "x\n");
            }
        })
        .collect();
    while lanes.next().await.is_some() {}
    begin.elapsed()
}

fn churn_directly() -> Duration {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                for _ in 0..CHURN / AT_ONCE {
                    let output = Command::new("/bin/echo").arg("x").output().expect("echo is there");
                    assert_eq!(output.stdout, b"x\n");
                }
            });
        }
    });
    begin.elapsed()
}

/// From the request to end a tree to the word that nothing of it is left.
pub(crate) async fn kill() {
    let kinds = [
        ("with control groups", service("", None, "strict", "shared").await),
        ("without", service("", Some("user"), "strict", "shared").await),
    ];
    for (name, way) in kinds {
        let Way::Service { mut wire, .. } = way else { continue };
        let mut times = Vec::new();
        for round in 0..20 {
            let script = format!("for n in $(seq {}); do sleep 1000 & done; echo up; wait", TREE - 1);
            let options = json!({"pty": false, "stdin": "null"});
            let pid = wire
                .spawn(json!({"processType": "shell", "command": "bash", "args": ["-c", script], "options": options}))
                .await;
            wire.stdout_until(pid, "up").await;
            let begin = Instant::now();
            let killed =
                wire.request(json!({"type": "kill", "id": round, "pid": pid, "signal": "SIGKILL"})).await;
            times.push(begin.elapsed());
            assert_eq!(killed["ended"], true, "{killed}");
        }
        let at_best = millis(percentile(&mut times, 0));
        report(
            &format!("kill of a tree of {TREE}, {name}"),
            &format!("{}, at best {at_best}", percentiles(&mut times)),
        );
    }
}
