//! Runs inside the sandbox, tries things, and says what the kernel answered.
//!
//! Arguments name the attempts, in order: `facts`, or `verb=operand` (`read=/etc/shadow`, `kill=1234`, `connect=127.0.0.1:80`);
//! without arguments it is `facts`. Each gives one JSON line: `{"attempt","outcome","errno","value"}`, where outcome is "value" for a
//! fact, "ok" for an attempt that worked and "denied" for one the kernel refused. The program never judges: the test outside
//! knows what should be refused, and runs the same probe without the rule as a control.
//!
//! Exit status 2 for an attempt it does not know: a misspelt denial test must not pass.

#![allow(clippy::disallowed_methods)] // starting programs is one of the things it tries

mod errno;
mod facts;
mod verbs;

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

fn main() -> ExitCode {
    let mut attempts: Vec<String> = std::env::args().skip(1).collect();
    if attempts.is_empty() {
        attempts.push("facts".to_owned());
    }
    for attempt in &attempts {
        if attempt == "facts" {
            for (name, value) in facts::all() {
                report(&json!({"attempt": name, "outcome": "value", "value": value}));
            }
            continue;
        }
        let (verb, operand) = attempt.split_once('=').unwrap_or((attempt, ""));
        let Some(try_it) = verbs::find(verb) else {
            eprintln!("mhnos-probe: no such attempt: {verb}; there are: facts {}", verbs::names().join(" "));
            return ExitCode::from(2);
        };
        report(&outcome(attempt, try_it(operand)));
    }
    ExitCode::SUCCESS
}

fn outcome(attempt: &str, result: io::Result<Value>) -> Value {
    match result {
        Ok(value) => json!({"attempt": attempt, "outcome": "ok", "value": value}),
        Err(error) => json!({
            "attempt": attempt,
            "outcome": "denied",
            "errno": error.raw_os_error().map_or_else(|| error.to_string(), errno::name),
        }),
    }
}

/// A line at a time, so that what was found before a kill is seen.
fn report(line: &Value) {
    let mut stdout = io::stdout().lock();
    // Nobody reads any more: there is nobody to tell.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
