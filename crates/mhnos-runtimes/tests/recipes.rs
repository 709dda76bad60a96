//! Requests against the exact launches they become.

use std::time::Duration;

use mhnos_runtimes::{
    Command, CommandRole, Context, ProcessType, Pty, Recipe, RecipeError, ReportKind, ServiceEnvironment,
    Sources, SpawnInput, Tool, Toolbox, recipe,
};
use mhnos_sandbox::{ExtraFdKind, Stdio, WindowSize};

const MIB: u64 = 1024 * 1024;

struct Files;

impl Sources for Files {
    fn read(&self, path: &str, _max: usize) -> Result<Option<Vec<u8>>, String> {
        Ok(match path {
            "/ws/worker.js" => Some(b"export default {}".to_vec()),
            "/ws/worker.ts" => Some(b"import x from './lib'; export default {}".to_vec()),
            "/ws/lib.ts" => Some(b"export default 1".to_vec()),
            _ => None,
        })
    }
}

fn toolbox() -> Toolbox {
    let mut toolbox = Toolbox::default();
    toolbox.record(Tool::Node, "/opt/node/bin/node", Ok("v24.21.0"));
    toolbox.record(Tool::Python, "/usr/bin/python3", Ok("Python 3.11.2"));
    toolbox.record(Tool::Bash, "/usr/bin/bash", Ok("GNU bash, version 5.2.15(1)-release"));
    toolbox.record(Tool::Workerd, "/opt/workerd", Ok("workerd 2026-11-17"));
    toolbox.record(Tool::OpenClaw, "/opt/openclaw", Ok("OpenClaw 2026.9.6 (eb377ac)"));
    toolbox
}

fn context() -> Context {
    Context {
        workspace: "/ws".to_owned(),
        path: "/opt/node/bin:/usr/bin:/bin".to_owned(),
        service: ServiceEnvironment::default(),
        kill_grace: Duration::from_secs(5),
        allow_openclaw: true,
        sandbox_mode: "strict",
        proxy: None,
    }
}

fn input(command: Command, args: &[&str]) -> SpawnInput {
    SpawnInput {
        command,
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        cwd: "/ws/project".to_owned(),
        pty: Pty::Default,
        stdin: true,
        memory: 1024 * MIB,
    }
}

fn word(word: &str) -> Command {
    Command::Word(word.to_owned())
}

fn path(path: &str) -> Command {
    Command::Path(path.to_owned())
}

fn with_env(mut input: SpawnInput, env: &[(&str, &str)]) -> SpawnInput {
    input.env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    input
}

fn make(process_type: ProcessType, input: &SpawnInput) -> Result<Recipe, RecipeError> {
    recipe(process_type, input, &toolbox(), &context(), &Files)
}

fn value<'r>(recipe: &'r Recipe, name: &str) -> Option<&'r str> {
    let mut found =
        recipe.launch.env.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let value = found.next();
    assert_eq!(found.next(), None, "{name} is set once");
    value
}

/// The program, then the argument vector.
fn check_argv(process_type: ProcessType, input: &SpawnInput, program: &str, argv: &[&str]) {
    let launch = make(process_type, input).unwrap().launch;
    assert_eq!(launch.program, program);
    assert_eq!(launch.argv, argv);
    assert_eq!(launch.cwd, "/ws/project");
}

#[test]
fn node_gets_a_heap_within_its_memory_limit() {
    let node = "/opt/node/bin/node";
    let check = |input: &SpawnInput, argv: &[&str]| check_argv(ProcessType::Node, input, node, argv);
    let heap = "--max-old-space-size=768";
    check(&input(path("/ws/app.js"), &["a", "", "b c"]), &["node", heap, "/ws/app.js", "a", "", "b c"]);
    check(&input(word("-e"), &["1+1"]), &["node", heap, "-e", "1+1"]);
    check(&input(word("--test"), &[]), &["node", heap, "--test"]);
    check(&input(word("-"), &[]), &["node", heap, "-"]);
    for (memory, heap) in [(64, 32), (128, 42), (256, 128), (512, 320), (768, 576), (4096, 3072)] {
        let limited = SpawnInput { memory: memory * MIB, ..input(word("-v"), &[]) };
        check(&limited, &["node", &format!("--max-old-space-size={heap}"), "-v"]);
    }
    let terminal = SpawnInput { pty: Pty::On(WindowSize::DEFAULT), ..input(Command::Absent, &[]) };
    check(&terminal, &["node", heap]);
    assert_eq!(value(&make(ProcessType::Node, &terminal).unwrap(), "NODE_OPTIONS"), None);
}

#[test]
fn python_shows_its_output_as_it_is_printed() {
    let check = |input: &SpawnInput, argv: &[&str]| {
        check_argv(ProcessType::Python, input, "/usr/bin/python3", argv);
    };
    check(&input(path("/ws/a.py"), &["x"]), &["/usr/bin/python3", "/ws/a.py", "x"]);
    check(&input(word("-m"), &["http.server"]), &["/usr/bin/python3", "-m", "http.server"]);
    check(&input(word("-c"), &["print(1)"]), &["/usr/bin/python3", "-c", "print(1)"]);
    let recipe = make(ProcessType::Python, &input(word("-c"), &["1"])).unwrap();
    assert_eq!(value(&recipe, "PYTHONUNBUFFERED"), Some("1"));
    let taken_back = with_env(input(word("-c"), &["1"]), &[("PYTHONUNBUFFERED", "")]);
    assert_eq!(value(&make(ProcessType::Python, &taken_back).unwrap(), "PYTHONUNBUFFERED"), Some(""));
}

#[test]
fn the_shell_is_the_one_asked_for_with_its_arguments() {
    let check = |input: &SpawnInput, program: &str, argv: &[&str], shell: Option<&str>| {
        check_argv(ProcessType::Shell, input, program, argv);
        assert_eq!(value(&make(ProcessType::Shell, input).unwrap(), "SHELL"), shell);
    };
    let bash = "/usr/bin/bash";
    check(&input(Command::Absent, &[]), bash, &["bash"], Some(bash));
    check(&input(Command::Absent, &["-c", "echo hi"]), bash, &["bash", "-c", "echo hi"], Some(bash));
    check(&input(word("-c"), &["echo hi"]), bash, &["bash", "-c", "echo hi"], Some(bash));
    check(&input(word("/bin/bash"), &["-l"]), "/bin/bash", &["/bin/bash", "-l"], Some("/bin/bash"));
    check(&input(word("sh"), &[]), "sh", &["sh"], None);
    check(&input(path("/ws/t.sh"), &["1"]), "/ws/t.sh", &["/ws/t.sh", "1"], Some("/ws/t.sh"));
    let zsh = with_env(input(Command::Absent, &[]), &[("SHELL", "/bin/zsh")]);
    check(&zsh, "/bin/zsh", &["zsh"], Some("/bin/zsh"));
    for none in ["/usr/sbin/nologin", "/bin/false", "zsh", ""] {
        let absent = with_env(input(Command::Absent, &[]), &[("SHELL", none)]);
        check(&absent, bash, &["bash"], Some(none));
    }
    let mut context = context();
    context.service.shell = Some("/bin/dash".to_owned());
    let recipe =
        recipe(ProcessType::Shell, &input(Command::Absent, &[]), &toolbox(), &context, &Files).unwrap();
    assert_eq!(recipe.launch.program, "/bin/dash");
}

#[test]
fn shells_have_a_terminal_and_others_pipes_unless_told_otherwise() {
    let size = WindowSize { cols: 120, rows: 40 };
    let check = |process_type, pty, stdin, expected: Result<Stdio, RecipeError>| {
        let input = SpawnInput { pty, stdin, ..input(word("-c"), &[]) };
        assert_eq!(
            make(process_type, &input).map(|recipe| recipe.stdio),
            expected,
            "{process_type:?} {pty:?}"
        );
    };
    let (shell, node) = (ProcessType::Shell, ProcessType::Node);
    check(shell, Pty::Default, true, Ok(Stdio::Pty(WindowSize::DEFAULT)));
    check(shell, Pty::On(size), true, Ok(Stdio::Pty(size)));
    check(shell, Pty::Off, true, Ok(Stdio::Pipes { stdin: true }));
    check(shell, Pty::Off, false, Ok(Stdio::Pipes { stdin: false }));
    check(node, Pty::Default, true, Ok(Stdio::Pipes { stdin: true }));
    check(node, Pty::Default, false, Ok(Stdio::Pipes { stdin: false }));
    check(node, Pty::On(size), true, Ok(Stdio::Pty(size)));
    check(shell, Pty::Default, false, Err(RecipeError::StdinOfTerminal));
    check(node, Pty::On(size), false, Err(RecipeError::StdinOfTerminal));
}

#[test]
fn a_configuration_is_served_where_it_lies() {
    let recipe = make(ProcessType::Workerd, &input(path("/ws/p/config.capnp"), &["", "--verbose"])).unwrap();
    assert_eq!(recipe.launch.program, "/opt/workerd");
    assert_eq!(recipe.launch.argv, ["workerd", "serve", "--control-fd=3", "/ws/p/config.capnp", "--verbose"]);
    assert_eq!(recipe.report, Some(ReportKind::Workerd));
    let fds: Vec<_> = recipe.launch.extra_fds.iter().map(|extra| (extra.fd, &extra.kind)).collect();
    assert_eq!(fds, [(3, &ExtraFdKind::Report)]);
    let version = make(ProcessType::Workerd, &input(word("--version"), &[])).unwrap();
    assert_eq!(
        (version.launch.argv, version.report),
        (vec!["workerd".to_owned(), "--version".to_owned()], None)
    );
}

#[test]
fn a_source_file_gets_a_configuration() {
    let configuration = |input: &SpawnInput, argv: &[&str]| {
        let launch = make(ProcessType::Workerd, input).unwrap().launch;
        assert_eq!(launch.argv, argv);
        let [control, content] = launch.extra_fds.try_into().unwrap();
        assert_eq!((control.fd, control.kind), (3, ExtraFdKind::Report));
        let ExtraFdKind::Content(content) = content.kind else { panic!("no content") };
        String::from_utf8(content).unwrap()
    };
    let source = with_env(input(path("/ws/worker.js"), &["--port", "3000"]), &[("KEY", "v"), ("KEY", "w")]);
    let text = configuration(&source, &["workerd", "serve", "--control-fd=3", "/proc/self/fd/4"]);
    assert!(text.contains(r#"(name = "worker.js", esModule = "export default {}")"#), "{text}");
    assert!(text.contains(r#"bindings = [(name = "KEY", fromEnvironment = "KEY")]"#), "{text}");
    assert!(text.contains("127.0.0.1:3000"), "{text}");
    let text = configuration(
        &input(path("/ws/worker.ts"), &["--verbose"]),
        &["workerd", "serve", "--control-fd=3", "--verbose", "--experimental", "/proc/self/fd/4"],
    );
    assert!(text.contains(r#"(name = "lib", esModule = "export default 1")"#), "{text}");
    assert!(text.contains(r#"compatibilityFlags = ["typescript_strip_types"]"#), "{text}");
}

#[test]
fn openclaw_s_gateway_starts_without_asking() {
    let check = |command: Command, args: &[&str], expected: &[&str]| {
        let argv = [&["node", "--max-old-space-size=768", "/opt/openclaw"], expected].concat();
        check_argv(ProcessType::OpenClaw, &input(command, args), "/opt/node/bin/node", &argv);
    };
    let quiet = ["--allow-unconfigured", "--bind", "loopback"];
    check(Command::Absent, &[], &[&["gateway"], &quiet[..]].concat());
    check(word("gateway"), &[], &[&["gateway"], &quiet[..]].concat());
    check(word("gateway"), &[""], &[&["gateway", ""], &quiet[..]].concat());
    check(word("gateway"), &["--port", "19001"], &[&["gateway", "--port", "19001"], &quiet[..]].concat());
    check(word("gateway"), &["run"], &[&["gateway", "run"], &quiet[..]].concat());
    check(word("gateway"), &["--bind=lan"], &["gateway", "--bind=lan", "--allow-unconfigured"]);
    check(word("gateway"), &["status"], &["gateway", "status"]);
    check(word("--version"), &[], &["--version"]);
    check(word("agent"), &["--message", "hi"], &["agent", "--message", "hi"]);
}

#[test]
fn openclaw_lives_in_the_workspace_and_has_time_to_end() {
    let check = |given: Option<&str>, expected: &str| {
        let env: Vec<_> = given.map(|path| ("OPENCLAW_WORKSPACE", path)).into_iter().collect();
        let recipe = make(ProcessType::OpenClaw, &with_env(input(Command::Absent, &[]), &env)).unwrap();
        assert_eq!(value(&recipe, "OPENCLAW_WORKSPACE"), Some(expected), "{given:?}");
        assert_eq!(value(&recipe, "HOME"), Some("/ws"));
        assert_eq!(recipe.grace, Duration::from_secs(20));
    };
    check(None, "/ws/project");
    check(Some("/"), "/ws");
    check(Some("/project"), "/ws/project");
    check(Some("/workspace/a/"), "/ws/a");
    check(Some("/ws/a"), "/ws/a");
    check(Some("/wsx"), "/ws/wsx");
    check(Some("sub"), "/ws/project/sub");
    check(Some("/../etc"), "/ws/project");
    let patient = Context { kill_grace: Duration::from_mins(1), ..context() };
    let recipe = recipe(ProcessType::OpenClaw, &input(Command::Absent, &[]), &toolbox(), &patient, &Files);
    assert_eq!(recipe.unwrap().grace, Duration::from_mins(1));
}

#[test]
fn the_environment_is_the_base_then_the_request_s() {
    let names = |recipe: &Recipe| recipe.launch.env.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let plain = make(ProcessType::Node, &input(word("-v"), &[])).unwrap();
    assert_eq!(names(&plain), ["PATH", "HOME", "USER", "LOGNAME", "NODE_ENV", "TERM", "LANG"]);
    let expected = [
        ("PATH", "/opt/node/bin:/usr/bin:/bin"),
        ("HOME", "/ws"),
        ("USER", "mhnos"),
        ("LOGNAME", "mhnos"),
        ("NODE_ENV", "production"),
        ("TERM", "xterm-256color"),
        ("LANG", "C.UTF-8"),
    ];
    for (name, expected) in expected {
        assert_eq!(value(&plain, name), Some(expected));
    }

    for none in ["", "C", "POSIX"] {
        let service = ServiceEnvironment { lang: Some(none.to_owned()), ..ServiceEnvironment::default() };
        let context = Context { service, ..context() };
        let recipe =
            recipe(ProcessType::Node, &input(word("-v"), &[]), &toolbox(), &context, &Files).unwrap();
        assert_eq!(value(&recipe, "LANG"), Some("C.UTF-8"), "LANG={none:?} is no choice");
    }

    let mut context = context();
    context.service = ServiceEnvironment {
        lang: Some("de_DE.UTF-8".to_owned()),
        lc_all: Some("C".to_owned()),
        tz: Some("Europe/Berlin".to_owned()),
        debug: Some("x*".to_owned()),
        shell: None,
    };
    let asked = with_env(input(word("-v"), &[]), &[("PATH", "/p"), ("A", "1"), ("TZ", ""), ("A", "2")]);
    let recipe = recipe(ProcessType::Node, &asked, &toolbox(), &context, &Files).unwrap();
    let expected =
        [("LANG", "de_DE.UTF-8"), ("LC_ALL", "C"), ("DEBUG", "x*"), ("PATH", "/p"), ("TZ", ""), ("A", "2")];
    for (name, expected) in expected {
        assert_eq!(value(&recipe, name), Some(expected));
    }
    assert_eq!(
        recipe.launch.program, "/opt/node/bin/node",
        "the client's PATH does not choose the interpreter"
    );
}

#[test]
fn what_cannot_be_started_is_refused_with_its_reason() {
    let check = |process_type, input: &SpawnInput, expected: &str| {
        assert_eq!(make(process_type, input).unwrap_err().to_string(), expected);
    };
    let absent = input(Command::Absent, &[]);
    check(ProcessType::Node, &absent, "node needs a command: a script, or a flag such as -e");
    check(ProcessType::Python, &absent, "python needs a command: a script, or a flag such as -c or -m");
    check(
        ProcessType::Workerd,
        &absent,
        "workerd needs a command: a .capnp configuration, or a worker's .js, .mjs or .ts source",
    );
    check(ProcessType::Node, &input(word("-e"), &["a", "b\0"]), "args[1] contains a NUL byte");
    check(ProcessType::Shell, &input(word("ba\0sh"), &[]), "command contains a NUL byte");
    let env = |env: &[(&str, &str)]| with_env(input(word("-e"), &[]), env);
    check(ProcessType::Node, &env(&[("A", "b\0")]), "env A contains a NUL byte");
    for name in ["", "A=B", "A\0"] {
        let expected = format!("{name:?} cannot be the name of an environment variable");
        check(ProcessType::Node, &env(&[(name, "")]), &expected);
    }

    let none = Toolbox::default();
    let missing =
        |process_type, input: &SpawnInput| match recipe(process_type, input, &none, &context(), &Files)
            .unwrap_err()
        {
            RecipeError::ToolUnavailable { tool, .. } => tool,
            other => panic!("{other}"),
        };
    assert_eq!(missing(ProcessType::Node, &input(word("-v"), &[])), Tool::Node);
    assert_eq!(missing(ProcessType::Python, &input(word("-V"), &[])), Tool::Python);
    assert_eq!(missing(ProcessType::Workerd, &input(path("/ws/worker.js"), &[])), Tool::Workerd);
    assert_eq!(missing(ProcessType::Shell, &absent), Tool::Bash);
    assert_eq!(missing(ProcessType::OpenClaw, &absent), Tool::OpenClaw);
    let zsh = input(word("/bin/zsh"), &[]);
    assert!(
        recipe(ProcessType::Shell, &zsh, &none, &context(), &Files).is_ok(),
        "bash is not needed for zsh"
    );

    let denied = Context { allow_openclaw: false, ..context() };
    let error = recipe(ProcessType::OpenClaw, &absent, &none, &denied, &Files).unwrap_err();
    assert_eq!(error, RecipeError::OpenClawDisabled);
}

#[test]
fn commands_are_told_apart() {
    use ProcessType::{Node, OpenClaw, Python, Shell, Workerd};
    let node = CommandRole::Path { extensions: &["", ".js", ".json", ".node"], directories: true };
    let python = CommandRole::Path { extensions: &[""], directories: true };
    let file = CommandRole::Path { extensions: &[""], directories: false };
    let check = |process_type: ProcessType, command: Option<&str>, expected: CommandRole| {
        assert_eq!(process_type.command_role(command), expected, "{process_type:?} {command:?}");
    };
    for process_type in ProcessType::ALL {
        check(process_type, None, CommandRole::Absent);
        check(process_type, Some(""), CommandRole::Absent);
        check(process_type, Some("--version"), CommandRole::Word);
        assert_eq!(ProcessType::from_name(process_type.name()), Some(process_type));
    }
    check(Node, Some("app.js"), node);
    check(Node, Some("/project/app.js"), node);
    check(Python, Some("a.py"), python);
    check(Workerd, Some("/p/config.capnp"), file);
    check(Shell, Some("/bin/bash"), CommandRole::Word);
    check(Shell, Some("bash"), CommandRole::Word);
    check(Shell, Some("./tool.sh"), file);
    check(OpenClaw, Some("gateway"), CommandRole::Word);
    for unknown in ["Node", "constructor", "__proto__", ""] {
        assert_eq!(ProcessType::from_name(unknown), None);
    }
}

#[test]
fn probes_run_outside_the_workspace() {
    let mut toolbox = Toolbox::default();
    let probe = toolbox.probe(Tool::Python, "/usr/bin/python3", &context());
    assert_eq!(probe.argv, ["/usr/bin/python3", "--version"]);
    assert_eq!(probe.cwd, "/");
    assert!(probe.env.contains(&("HOME".to_owned(), "/tmp".to_owned())));
    toolbox.record(Tool::Node, "/n/node", Ok("v24.21.0"));
    let probe = toolbox.probe(Tool::OpenClaw, "/o/openclaw", &context());
    assert_eq!((probe.program.as_str(), probe.argv.len()), ("/n/node", 3));
}
