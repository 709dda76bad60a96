//! What `args` and `PORT` say about a generated worker. The names are those of the vendor's own tools.

use crate::{RecipeError, Version};

/// The behaviour a worker gets if it does not ask for another, so that an upgrade of workerd changes nothing.
const COMPATIBILITY_DATE: Version = Version(2026, 11, 1);

/// From this date on Node's modules are there by default, and the flag for them only earns a warning.
const NODE_BY_DEFAULT: Version = Version(2026, 8, 4);

const ACCEPTED: &str = "--port N, --compatibility-date YYYY-MM-DD, --compatibility-flag NAME, \
                        --experimental and --verbose are accepted";

/// Settings of a generated configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arguments {
    /// TCP port on loopback; 0 picks one.
    pub(super) port: u16,
    pub(super) compatibility_date: Version,
    pub(super) compatibility_flags: Vec<String>,
    /// Passed on to `workerd serve`.
    pub(super) flags: Vec<String>,
}

impl Arguments {
    /// `--port` counts more than `PORT`. Empty arguments, which a client that splits at blanks sends, are
    /// passed over. `workerd` is the version that will run: it refuses dates beyond its own.
    pub(super) fn parse(
        args: &[String],
        env: &[(String, String)],
        workerd: Version,
    ) -> Result<Self, RecipeError> {
        let mut parsed = Self {
            port: match env.iter().rev().find(|(name, _)| name == "PORT") {
                Some((_, value)) if !value.is_empty() => port("PORT", value)?,
                _ => 0,
            },
            compatibility_date: COMPATIBILITY_DATE.min(workerd),
            compatibility_flags: Vec::new(),
            flags: Vec::new(),
        };
        let mut rest = args.iter().map(String::as_str).filter(|arg| !arg.is_empty());
        while let Some(arg) = rest.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (arg, None),
            };
            let mut value =
                || inline.or_else(|| rest.next()).ok_or_else(|| refused(format!("{name} needs a value")));
            match name {
                "--port" => parsed.port = port(name, value()?)?,
                "--compatibility-date" => parsed.compatibility_date = date(value()?, workerd)?,
                "--compatibility-flag" => parsed.compatibility_flags.push(flag(value()?)?),
                "--experimental" | "--verbose" if inline.is_none() => parsed.flags.push(name.to_owned()),
                _ => return Err(refused(format!("{arg:?} is not known for a worker's source; {ACCEPTED}"))),
            }
        }
        if parsed.compatibility_date < NODE_BY_DEFAULT {
            parsed.compatibility_flags.insert(0, "nodejs_compat".to_owned());
        }
        Ok(parsed)
    }
}

fn port(name: &str, value: &str) -> Result<u16, RecipeError> {
    value.parse().map_err(|_| refused(format!("{name} must be a port, 0 to 65535, not {value:?}")))
}

fn date(value: &str, workerd: Version) -> Result<Version, RecipeError> {
    let digits = |text: &str, count: usize| text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = value.split('-').collect();
    let well_formed = matches!(parts.as_slice(), [year, month, day]
        if digits(year, 4) && digits(month, 2) && digits(day, 2));
    match Version::find(value).filter(|_| well_formed) {
        Some(date) if date <= workerd => Ok(date),
        Some(_) => Err(refused(format!("this workerd knows compatibility dates up to {}", workerd.date()))),
        None => Err(refused(format!("--compatibility-date must be YYYY-MM-DD, not {value:?}"))),
    }
}

fn flag(value: &str) -> Result<String, RecipeError> {
    let plain = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain { Ok(value.to_owned()) } else { Err(refused(format!("{value:?} is no compatibility flag"))) }
}

fn refused(text: String) -> RecipeError {
    RecipeError::WorkerArgument { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKERD: Version = Version(2026, 11, 17);

    fn parse(args: &str, port: Option<&str>, workerd: Version) -> Result<Arguments, String> {
        let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        let env: Vec<_> = port.map(|port| ("PORT".to_owned(), port.to_owned())).into_iter().collect();
        Arguments::parse(&args, &env, workerd).map_err(|error| error.to_string())
    }

    #[test]
    fn the_port_comes_from_the_arguments_then_from_the_environment() {
        let check = |args: &str, env: Option<&str>, expected: u16| {
            assert_eq!(parse(args, env, WORKERD).unwrap().port, expected, "{args:?} {env:?}");
        };
        check("", None, 0);
        check("", Some(""), 0);
        check("", Some("8080"), 8080);
        check("--port 3000", Some("8080"), 3000);
        check("--port=0", Some("8080"), 0);
        check("--verbose  --port 3000", None, 3000);
    }

    #[test]
    fn the_date_is_a_fixed_one_or_the_older_binary_s_or_as_asked() {
        let check = |args: &str, workerd: Version, expected: &str, flags: &[&str]| {
            let parsed = parse(args, None, workerd).unwrap();
            assert_eq!(parsed.compatibility_date.date(), expected);
            assert_eq!(parsed.compatibility_flags, flags);
        };
        check("", WORKERD, "2026-11-01", &[]);
        check("", Version(2027, 3, 1), "2026-11-01", &[]);
        check("", Version(2026, 8, 4), "2026-08-04", &[]);
        check("", Version(2026, 8, 3), "2026-08-03", &["nodejs_compat"]);
        check("--compatibility-date 2024-01-31", WORKERD, "2024-01-31", &["nodejs_compat"]);
        check("--compatibility-date=2026-11-17", WORKERD, "2026-11-17", &[]);
        check("--compatibility-flag no_x --compatibility-flag=y", WORKERD, "2026-11-01", &["no_x", "y"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let check = |args: &str, expected: &str| {
            assert_eq!(parse(args, None, WORKERD).unwrap_err(), format!("workerd: {expected}"));
        };
        check("--port", "--port needs a value");
        check("--port 70000", r#"--port must be a port, 0 to 65535, not "70000""#);
        check("--compatibility-date 2026-1-1", r#"--compatibility-date must be YYYY-MM-DD, not "2026-1-1""#);
        check("--compatibility-date 2026-11-18", "this workerd knows compatibility dates up to 2026-11-17");
        check("--compatibility-flag a\"b", r#""a\"b" is no compatibility flag"#);
        let unknown = parse("extra", None, WORKERD).unwrap_err();
        assert!(
            unknown.starts_with(r#"workerd: "extra" is not known for a worker's source; --port"#),
            "{unknown}"
        );
        assert!(parse("", Some("x"), WORKERD).unwrap_err().starts_with("workerd: PORT must be"), "PORT");
    }
}
