//! The settings, by what an operator may write.

use std::{ffi::OsString, net::IpAddr, os::unix::ffi::OsStringExt, time::Duration};

use mhnos_sandbox::{Mode, Tier};
use proptest::prelude::*;

use super::{Config, LogFormat, LogLevel, Mistake, SETTINGS, Warning, reference, values};

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
}

fn parsed(pairs: &[(&str, &str)]) -> Config {
    let (config, warnings) = Config::parse(env(pairs).into_iter(), &[]).expect("accepted");
    assert_eq!(warnings, []);
    config
}

fn refused(pairs: &[(&str, &str)]) -> Vec<Mistake> {
    Config::parse(env(pairs).into_iter(), &[]).expect_err("refused")
}

#[test]
fn nothing_given_means_the_documented_defaults() {
    let config = parsed(&[("PATH", "/bin"), ("HOME", "/root")]);
    assert_eq!(config, Config::default());
    assert_eq!((config.port, config.sandbox, config.max_memory), (18790, Mode::Strict, 1 << 30));
}

#[test]
fn the_defaults_in_the_table_are_the_defaults() {
    for setting in SETTINGS.iter().filter(|setting| setting.variable != "MHNOS_MAX_CPU") {
        let mut config = Config::default();
        (setting.apply)(&mut config, setting.default).expect(setting.variable);
        assert_eq!(config, Config::default(), "{}", setting.variable);
    }
}

#[test]
fn every_setting_is_read_from_its_variable() {
    let config = parsed(&[
        ("MHNOS_RUNTIME_PORT", "0"),
        ("MHNOS_WORKSPACE", "/srv/work"),
        ("MHNOS_SANDBOX", "relaxed"),
        ("MHNOS_ALLOW_OPENCLAW", "true"),
        ("MHNOS_MAX_PROCESSES", "7"),
        ("MHNOS_MAX_MEMORY", "256m"),
        ("MHNOS_LOG_LEVEL", "WARN"),
        ("MHNOS_HOST", "0.0.0.0, [::]"),
        ("MHNOS_TRUST_NETWORK", "true"),
        ("MHNOS_ALLOWED_ORIGINS", "https://os.example.org, https://*.example.net"),
        ("MHNOS_AUTH_TOKEN", "0123456789abcdef"),
        ("MHNOS_AUTH_TOKEN_FILE", "/run/secrets/tokens"),
        ("MHNOS_TLS_CERT", "/etc/tls/cert.pem"),
        ("MHNOS_TLS_KEY", "/etc/tls/key.pem"),
        ("MHNOS_MAX_CONNECTIONS", "9"),
        ("MHNOS_MAX_CONNECTIONS_PER_ADDRESS", "8"),
        ("MHNOS_MAX_PIDS", "64"),
        ("MHNOS_MAX_CPU", "0.5"),
        ("MHNOS_OUTPUT_LOG", "1m"),
        ("MHNOS_KILL_GRACE", "250ms"),
        ("MHNOS_LOG_FORMAT", "json"),
        ("MHNOS_SANDBOX_MIN_TIER", "t3+"),
        ("MHNOS_PULL_SKIP", "target, .venv"),
        ("MHNOS_PATH", "/opt/node/bin:/usr/bin"),
    ]);
    assert_eq!(config.port, 0);
    assert_eq!(config.workspace.to_str(), Some("/srv/work"));
    assert_eq!((config.sandbox, config.sandbox_min_tier), (Mode::Relaxed, Tier::T3Plus));
    assert!(config.allow_openclaw && config.trust_network);
    assert_eq!((config.max_processes, config.max_pids, config.max_cpu_millis), (7, 64, 500));
    assert_eq!((config.max_memory, config.output_log), (256 << 20, 1 << 20));
    assert_eq!((config.log_level, config.log_format), (LogLevel::Warn, LogFormat::Json));
    assert_eq!(config.hosts, ["0.0.0.0".parse::<IpAddr>().unwrap(), "::".parse().unwrap()]);
    assert_eq!(config.allowed_origins.len(), 2);
    assert_eq!(config.kill_grace, Duration::from_millis(250));
    assert_eq!(config.pull_skip, ["target", ".venv"]);
    assert_eq!(config.path, "/opt/node/bin:/usr/bin");
}

#[test]
fn all_mistakes_are_told_together_with_what_is_accepted() {
    let mistakes = refused(&[
        ("MHNOS_MAX_MEMORY", "lots"),
        ("MHNOS_RUNTIME_PORT", "99999"),
        ("MHNOS_SANDBOX", "off"),
        ("MHNOS_MAX_PROCESSES", "0"),
        ("MHNOS_ALLOW_OPENCLAW", "maybe"),
    ]);
    let names: Vec<_> = mistakes.iter().map(|mistake| mistake.name.as_str()).collect();
    let expected = [
        "MHNOS_RUNTIME_PORT",
        "MHNOS_SANDBOX",
        "MHNOS_ALLOW_OPENCLAW",
        "MHNOS_MAX_PROCESSES",
        "MHNOS_MAX_MEMORY",
    ];
    assert_eq!(names, expected);
    assert_eq!(mistakes[1].to_string(), r#"MHNOS_SANDBOX="off": expected strict, relaxed or none"#);
}

#[test]
fn a_value_that_is_not_text_is_a_mistake() {
    let env = [(OsString::from("MHNOS_WORKSPACE"), OsString::from_vec(vec![b'/', 0xff]))];
    assert_eq!(Config::parse(env.into_iter(), &[]).expect_err("refused").len(), 1);
}

#[test]
fn a_flag_wins_over_its_variable_and_an_unknown_flag_is_a_mistake() {
    let flags = [("--max-memory".to_owned(), "2g".to_owned())];
    let (config, _) =
        Config::parse(env(&[("MHNOS_MAX_MEMORY", "1g")]).into_iter(), &flags).expect("accepted");
    assert_eq!(config.max_memory, 2 << 30);

    let flags = [("--max-memmory".to_owned(), "2g".to_owned())];
    let mistakes = Config::parse(std::iter::empty(), &flags).expect_err("refused");
    assert!(mistakes[0].to_string().contains("--max-memory"), "{}", mistakes[0]);
}

#[test]
fn an_empty_variable_is_as_none_and_an_unknown_one_warns() {
    let given = env(&[
        ("MHNOS_MAX_MEMORY", ""),
        ("MHNOS_MAX_MEMROY", "1g"),
        ("MHNOS_PORT", "80"),
        ("MHNOS_COLOUR", "blue"),
    ]);
    let (config, warnings) = Config::parse(given.into_iter(), &[]).expect("accepted");
    assert_eq!(config, Config::default());
    let ignored = |name: &str, hint: &str| {
        Warning(format!("{name} is not a setting of this service and is ignored{hint}"))
    };
    assert_eq!(
        warnings,
        [
            ignored("MHNOS_MAX_MEMROY", "; did you mean MHNOS_MAX_MEMORY?"),
            ignored("MHNOS_PORT", "; did you mean MHNOS_RUNTIME_PORT?"),
            ignored("MHNOS_COLOUR", ""),
        ]
    );
}

#[test]
fn a_non_loopback_address_needs_somebody_who_vouches_for_the_network() {
    let mistakes = refused(&[("MHNOS_HOST", "127.0.0.1,192.0.2.7")]);
    assert_eq!((mistakes.len(), mistakes[0].value.as_str()), (1, "192.0.2.7"));
    let remedies = &mistakes[0].accepts;
    assert!(remedies.contains("MHNOS_TRUST_NETWORK=true") && remedies.contains("MHNOS_AUTH_TOKEN_FILE"));
    parsed(&[("MHNOS_HOST", "192.0.2.7"), ("MHNOS_AUTH_TOKEN", "0123456789abcdef")]);
    parsed(&[("MHNOS_HOST", "192.0.2.7"), ("MHNOS_AUTH_TOKEN_FILE", "/run/secrets/tokens")]);
    parsed(&[("MHNOS_HOST", "192.0.2.7"), ("MHNOS_AUTH_TOKEN", "sealed")]);
    parsed(&[("MHNOS_HOST", "192.0.2.7"), ("MHNOS_TRUST_NETWORK", "true")]);
    parsed(&[("MHNOS_HOST", "127.0.0.9,::1")]);
}

#[test]
fn a_token_is_no_flag_and_is_shown_to_nobody() {
    let secret = "0123456789abcdef";
    let flags = [("--auth-token".to_owned(), secret.to_owned())];
    let mistakes = Config::parse(std::iter::empty(), &flags).expect_err("refused");
    assert!(mistakes[0].to_string().contains("MHNOS_AUTH_TOKEN_FILE"), "{}", mistakes[0]);
    let given = [(OsString::from("MHNOS_AUTH_TOKEN"), OsString::from_vec(b"secret\xff".to_vec()))];
    let unreadable = Config::parse(given.into_iter(), &[]).expect_err("refused");
    let config = parsed(&[("MHNOS_AUTH_TOKEN", secret)]);
    let effective: Vec<_> = config.effective().collect();
    for shown in [format!("{config:?}"), format!("{effective:?}"), format!("{mistakes:?} {unreadable:?}")] {
        assert!(!shown.contains(secret) && !shown.contains("secret\\"), "{shown}");
    }
}

#[test]
fn a_certificate_and_its_key_come_together() {
    for (given, missing) in [("MHNOS_TLS_CERT", "MHNOS_TLS_KEY"), ("MHNOS_TLS_KEY", "MHNOS_TLS_CERT")] {
        let mistake = refused(&[(given, "/etc/tls/file")])[0].to_string();
        assert!(mistake.starts_with(given) && mistake.contains(missing), "{mistake}");
    }
}

#[test]
fn names_to_skip_are_plain_ones_or_none_at_all() {
    assert_eq!(values::names("none"), Some(vec![]));
    assert_eq!(values::names("a b,.c"), Some(vec!["a b".to_owned(), ".c".to_owned()]));
    for text in ["", "a,,b", "a/b", "..", "a,."] {
        assert_eq!(values::names(text), None, "{text:?}");
    }
}

#[test]
fn sizes_are_read_in_every_usual_spelling() {
    let check = |text, expected| assert_eq!(values::size(text), expected, "{text:?}");
    for text in
        ["1g", "1G", "1gb", "1GB", "1GiB", "1 g", "1024m", "1048576k", "1073741824", "1073741824b", "1.0g"]
    {
        check(text, Some(1 << 30));
    }
    check("512k", Some(512 << 10));
    check("1.5m", Some(3 << 19));
    check("2t", Some(2 << 40));
    for text in [
        "",
        "g",
        "-1g",
        "+1g",
        "1x",
        "1gg",
        "1 000",
        "1,5g",
        ".5g",
        "1.g",
        "0x10",
        "99999999999999999999",
        "17000000t",
        "١g",
    ] {
        check(text, None);
    }
}

#[test]
fn the_reference_in_the_repository_is_the_generated_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    if committed != reference() {
        std::fs::write(path, reference()).expect("docs/configuration.md can be written");
        panic!("docs/configuration.md was out of date and has been written anew: commit it");
    }
}

proptest! {
    #[test]
    fn the_effective_settings_read_back_to_the_same_configuration(
        port: u16,
        memory in (64u64 << 20)..(1 << 50),
        pids in 1u32..,
        cpu in 10u32..1_000_000,
        grace in 0u64..3_600_000,
        openclaw: bool,
    ) {
        let config = Config {
            port, max_memory: memory, max_pids: pids, max_cpu_millis: cpu, allow_openclaw: openclaw,
            kill_grace: Duration::from_millis(grace),
            allowed_origins: values::origins("https://a.example:8443,http://*.b.example").unwrap(),
            ..Config::default()
        };
        let env = config.effective().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let (again, warnings) = Config::parse(env, &[]).unwrap();
        prop_assert_eq!(again, config);
        prop_assert_eq!(warnings, []);
    }

    #[test]
    fn no_value_of_any_setting_makes_parsing_panic(index in 0..SETTINGS.len(), value: String) {
        let env = [(OsString::from(SETTINGS[index].variable), OsString::from(value))];
        let _ = Config::parse(env.into_iter(), &[]);
    }
}
