//! Reading a `spawn`.

use std::collections::HashMap;
use std::time::Duration;

use crate::error::{ErrorCode, Malformed, shorten};
use crate::fields::{ExecBytes, Fields, object_fields, one_of, text};
use crate::limits::{MAX_ARG_BYTES, MAX_ARGS, MAX_ENV, MAX_NAME_BYTES, MAX_PATH_BYTES};
use crate::parse::{MessageFields, encoding, events};
use crate::scan::{Raw, Scanner};
use crate::spawn::{IsolationMode, LimitsRequest, ProcessType, Pty, Spawn, SpawnOptions, StdinMode};

const OPTIONS: [&str; 10] =
    ["cwd", "env", "timeout", "pty", "stdin", "limits", "isolation", "name", "encoding", "events"];

pub(crate) fn parse_spawn(fields: &MessageFields<'_>) -> Result<Spawn, Malformed> {
    let process_type = process_type(fields.raw("processType"))?;
    let mut exec = ExecBytes::default();
    let command = fields.optional("command", |field, raw| text(field, raw, MAX_ARG_BYTES))?;
    exec.add("command", command.as_ref().map_or(0, String::len))?;
    // `args` and `options` refuse null, as they did in 1.0.
    let args = fields.raw("args").map(|raw| arguments(raw, &mut exec)).transpose()?.unwrap_or_default();
    let options = match fields.raw("options") {
        Some(raw) => options(&object_fields("options", raw, "options.", OPTIONS)?, &mut exec)?,
        None => SpawnOptions::default(),
    };
    Ok(Spawn { process_type, command, args, options })
}

fn process_type(raw: Option<Raw<'_>>) -> Result<ProcessType, Malformed> {
    let given = raw.and_then(Raw::as_string);
    let known = ProcessType::ALL.into_iter().find(|kind| given.as_deref() == Some(kind.as_str()));
    known.ok_or_else(|| {
        let given = given.as_deref().unwrap_or(raw.map_or("undefined", |raw| raw.0));
        let names = ProcessType::ALL.map(ProcessType::as_str).join(", ");
        let text = format!("Unknown process type: {} (one of {names})", shorten(given));
        Malformed::new(ErrorCode::UnknownProcessType, text)
    })
}

fn arguments(raw: Raw<'_>, exec: &mut ExecBytes) -> Result<Vec<String>, Malformed> {
    if !raw.is_array() {
        return Err(Malformed::value("args", "an array of strings", raw.0));
    }
    let mut args = Vec::new();
    Scanner::new(raw.0).array(|scanner, index| {
        if index == MAX_ARGS {
            return Err(too_many("args", MAX_ARGS));
        }
        let field = format!("args[{index}]");
        let arg = text(&field, scanner.value()?, usize::MAX)?;
        exec.add(&field, arg.len())?;
        args.push(arg);
        Ok(())
    })?;
    Ok(args)
}

fn options(fields: &Fields<'_, 10>, exec: &mut ExecBytes) -> Result<SpawnOptions, Malformed> {
    Ok(SpawnOptions {
        cwd: fields.optional("cwd", |field, raw| text(field, raw, MAX_PATH_BYTES))?,
        env: fields.optional("env", |field, raw| environment(field, raw, exec))?.unwrap_or_default(),
        timeout: fields.optional("timeout", timeout)?.flatten(),
        pty: fields.optional("pty", pty)?,
        stdin: fields.optional("stdin", |field, raw| {
            one_of(field, raw, &[("pipe", StdinMode::Pipe), ("null", StdinMode::Null)])
        })?,
        limits: fields.optional("limits", limits)?.unwrap_or_default(),
        isolation: fields.optional("isolation", |field, raw| {
            one_of(field, raw, &[("shared", IsolationMode::Shared), ("private", IsolationMode::Private)])
        })?,
        name: fields.optional("name", name)?,
        encoding: fields.optional("encoding", encoding)?,
        events: fields.optional("events", events)?.unwrap_or_default(),
    })
}

fn environment(field: &str, raw: Raw<'_>, exec: &mut ExecBytes) -> Result<Vec<(String, String)>, Malformed> {
    if !raw.is_object() {
        return Err(Malformed::value(field, "an object of strings", raw.0));
    }
    let mut env: Vec<(String, String)> = Vec::new();
    let mut places = HashMap::new();
    let mut count = 0;
    Scanner::new(raw.0).object(|scanner, variable| {
        count += 1;
        if count > MAX_ENV {
            return Err(too_many(field, MAX_ENV));
        }
        if variable.is_empty() || variable.contains(['=', '\0']) {
            let accepted = "names that are not empty and hold neither '=' nor NUL";
            return Err(Malformed::value(&format!("{field} keys"), accepted, &format!("{variable:?}")));
        }
        let value = variable_value(&format!("{field}.{}", shorten(&variable)), scanner.value()?)?;
        exec.add(&format!("{field}.{variable}"), variable.len() + 1 + value.len())?;
        // Of duplicates the last counts, in the place of the first.
        let place = *places.entry(variable.clone()).or_insert(env.len());
        if place == env.len() {
            env.push((variable.into_owned(), value));
        } else {
            env[place].1 = value;
        }
        Ok(())
    })?;
    Ok(env)
}

/// Numbers and booleans become the text that stands in the message.
fn variable_value(field: &str, raw: Raw<'_>) -> Result<String, Malformed> {
    if raw.is_number() || raw.as_bool().is_some() {
        return Ok(raw.0.to_owned());
    }
    if raw.as_string().is_none() {
        return Err(Malformed::value(field, "a string, a number, true or false", raw.0));
    }
    text(field, raw, usize::MAX)
}

/// Zero means none. Any size works: what is beyond 2^64 ms is 2^64 ms.
fn timeout(field: &str, raw: Raw<'_>) -> Result<Option<Duration>, Malformed> {
    let millis = raw.as_whole().or_else(|| {
        let number = raw.as_number()?;
        (number >= u64::MAX as f64).then_some(u64::MAX)
    });
    let millis =
        millis.ok_or_else(|| Malformed::value(field, "a whole number of milliseconds, 0 for none", raw.0))?;
    Ok((millis > 0).then(|| Duration::from_millis(millis)))
}

fn pty(field: &str, raw: Raw<'_>) -> Result<Pty, Malformed> {
    match raw.as_bool() {
        Some(false) => Ok(Pty::Off),
        Some(true) => Ok(Pty::DefaultSize),
        None if raw.is_object() => {
            let size = object_fields(field, raw, "options.pty.", ["cols", "rows"])?;
            Ok(Pty::Size(size.window_size()?))
        }
        None => Err(Malformed::value(field, "true, false or {cols, rows}", raw.0)),
    }
}

fn limits(field: &str, raw: Raw<'_>) -> Result<LimitsRequest, Malformed> {
    let fields = object_fields(field, raw, "options.limits.", ["memory", "pids", "cpu"])?;
    Ok(LimitsRequest {
        memory: fields.optional("memory", |field, raw| {
            let bytes = raw.as_whole().filter(|bytes| *bytes > 0);
            bytes.ok_or_else(|| Malformed::value(field, "a whole number of bytes from 1", raw.0))
        })?,
        pids: fields.optional("pids", |field, raw| {
            let pids = raw.as_whole().and_then(|pids| u32::try_from(pids).ok()).filter(|pids| *pids > 0);
            pids.ok_or_else(|| Malformed::value(field, "a whole number from 1 to 4294967295", raw.0))
        })?,
        cpu_millis: fields.optional("cpu", |field, raw| {
            let millis = raw.as_number().map(|cores| cores * 1000.0).map(f64::round);
            let in_range = millis.filter(|millis| (1.0..=f64::from(u32::MAX)).contains(millis));
            in_range
                .map(|millis| millis as u32)
                .ok_or_else(|| Malformed::value(field, "a number of cores from 0.001", raw.0))
        })?,
    })
}

fn name(field: &str, raw: Raw<'_>) -> Result<String, Malformed> {
    let name = text(field, raw, MAX_NAME_BYTES)?;
    if name.chars().any(char::is_control) {
        return Err(Malformed::value(field, "a string without control characters", raw.0));
    }
    Ok(name)
}

fn too_many(field: &str, max: usize) -> Malformed {
    Malformed::new(ErrorCode::ArgumentsTooLong, format!("{field} has more than {max} entries"))
}
