//! A program's share of the CPU, and the service while programs take all they can.

use std::time::{Duration, Instant};

use mhnos_testing::{Server, Wire, host::Host};
use serde_json::json;

use crate::{abuse::strict_hosts, options};

/// Works as long as the clock runs.
const BUSY: &str = "import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass\n";

/// Generous: the machine may be busy with other things.
const ANSWER: Duration = Duration::from_secs(5);

async fn cpu_ms(wire: &mut Wire, cores: f64) -> u64 {
    let options = json!({"pty": false, "limits": {"cpu": cores}});
    let spawn = json!({"processType": "python", "command": "busy.py", "options": options});
    let pid = wire.spawn(spawn).await;
    let (.., exit) = wire.run_to_exit(pid).await;
    assert_eq!(exit["code"], 0, "{exit}");
    exit["usage"]["cpuMs"].as_u64().expect("a number")
}

async fn slowest_of_pings(wire: &mut Wire) -> Duration {
    let mut worst = Duration::ZERO;
    for id in 0..50 {
        let begin = Instant::now();
        wire.request(json!({"type": "ping", "id": id})).await;
        worst = worst.max(begin.elapsed());
    }
    worst
}

#[tokio::test]
async fn cpu_time_is_limited_and_the_service_answers_meanwhile() {
    let server = Server::start(options().on("root"));
    server.write("busy.py", BUSY);
    let mut wire = Wire::connect(server.address()).await;
    let mut other = Wire::connect(server.address()).await;
    let limited = cpu_ms(&mut wire, 0.05);
    let (limited, worst) = tokio::join!(limited, slowest_of_pings(&mut other));
    // The control has all there is.
    let free = cpu_ms(&mut wire, 1.0).await;
    assert!(limited < 600, "{limited} ms in three seconds with a twentieth of a core");
    assert!(free > limited, "{free} ms without, {limited} ms with a limit");
    assert!(worst < ANSWER, "{worst:?} for a ping");
}

/// Says its priority, then works until it is ended.
const ENDLESS: &str =
    "import os\nprint('nice', os.getpriority(os.PRIO_PROCESS, 0), flush=True)\nwhile True: pass\n";

#[tokio::test]
async fn busy_programs_that_nothing_limits_do_not_starve_the_service() {
    let own = rustix::process::getpriority_process(None).expect("this process's");
    for host in strict_hosts().filter(|host| !Host::named(host).grouped) {
        let server = Server::start(options().on(host));
        server.write("endless.py", ENDLESS);
        let mut wire = Wire::connect(server.address()).await;
        let cores = std::thread::available_parallelism().expect("cores").get();
        let options = json!({"pty": false, "limits": {"cpu": 0.05}});
        let spawn = json!({"processType": "python", "command": "endless.py", "options": options});
        let mut busy = Vec::new();
        for _ in 0..2 * cores {
            let pid = wire.spawn(spawn.clone()).await;
            let said = wire.stdout_until(pid, "\n").await;
            assert_eq!(said.trim(), format!("nice {}", (own + 10).min(19)), "{host}");
            busy.push(pid);
        }
        let mut other = Wire::connect(server.address()).await;
        let worst = slowest_of_pings(&mut other).await;
        assert!(worst < ANSWER, "{host}: {worst:?} for a ping");
        // The service gets to end them, too.
        for pid in busy {
            let ended =
                other.request(json!({"type": "kill", "id": 1, "pid": pid, "signal": "SIGKILL"})).await;
            assert_eq!(ended["type"], "killed", "{host}: {ended}");
        }
    }
}
