//! `openclaw`: a subcommand, `gateway` by default, where the settings allow it.
//!
//! The gateway is made to start without asking: on a fresh HOME it would exit 78 for want of a configuration
//! (`--allow-unconfigured`), and in a container it would bind all addresses and then refuse to do so without a
//! password (`--bind loopback`). Both are added only where the request does not speak of them, and only to the
//! gateway itself; `gateway status`, and every other subcommand, pass as they are. A port is passed on as it
//! comes (`--port N`, or OPENCLAW_GATEWAY_PORT); OpenClaw's own default is 18789.
//!
//! Its state, and its agents' own directory, live under HOME, which is the workspace (OPENCLAW_WORKSPACE_DIR in
//! `options.env` moves the latter). The Web OS client sends a path of its own file system in
//! OPENCLAW_WORKSPACE; that is taken for the same place in the workspace, as `cwd` is.
//!
//! It runs on the Node that was found, by absolute path; its own first line would search a client's `PATH`.

use crate::{Command, Context, RecipeError, SpawnInput, Tool, Toolbox, limits, node, recipe::Start};

const WORKSPACE: &str = "OPENCLAW_WORKSPACE";

pub(crate) fn start(input: &SpawnInput, toolbox: &Toolbox, context: &Context) -> Result<Start, RecipeError> {
    if !context.allow_openclaw {
        return Err(RecipeError::OpenClawDisabled);
    }
    let (openclaw, _) = toolbox.require(Tool::OpenClaw)?;
    let (node, _) = toolbox.require(Tool::Node)?;
    let mut argv = vec!["node".to_owned(), node::heap_flag(input.memory), openclaw.to_owned()];
    match &input.command {
        Command::Word(word) | Command::Path(word) if word != "gateway" => {
            argv.push(word.clone());
            argv.extend(input.args.iter().cloned());
        }
        _ => argv.extend(gateway(&input.args)),
    }
    let given = input.env.iter().rev().find(|(name, _)| name == WORKSPACE).map(|(_, value)| value.as_str());
    let workspace = given.map_or_else(|| input.cwd.clone(), |path| in_workspace(path, &input.cwd, context));
    Ok(Start {
        program: node.to_owned(),
        argv,
        env: vec![("OPENCLAW_SANDBOX".to_owned(), context.sandbox_mode.to_owned())],
        fixed_env: vec![(WORKSPACE.to_owned(), workspace)],
        least_grace: limits::OPENCLAW_GRACE,
        ..Start::default()
    })
}

/// The words of a `gateway` that starts without asking.
fn gateway(args: &[String]) -> Vec<String> {
    let given = |flag: &str| args.iter().any(|arg| arg == flag || arg.starts_with(&format!("{flag}=")));
    let words = std::iter::once("gateway".to_owned()).chain(args.iter().cloned());
    let other_command =
        args.first().is_some_and(|arg| !arg.is_empty() && !arg.starts_with('-') && arg != "run");
    if other_command {
        return words.collect();
    }
    let unconfigured = (!given("--allow-unconfigured")).then_some(["--allow-unconfigured"].as_slice());
    let loopback = (!given("--bind")).then_some(["--bind", "loopback"].as_slice());
    let added = [unconfigured, loopback].into_iter().flatten().flatten().map(|word| (*word).to_owned());
    words.chain(added).collect()
}

/// A directory as clients write it, as processes see it: the mapping of `cwd`, of which the server's resolved
/// form is `cwd`. Only text: what OpenClaw can reach is the sandbox's matter.
fn in_workspace(path: &str, cwd: &str, context: &Context) -> String {
    let root = context.workspace.trim_end_matches('/');
    let below =
        |prefix: &str| path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let rest = match path {
        path if path.split('/').any(|name| name == "..") => return cwd.to_owned(),
        path if !path.starts_with('/') => return format!("{cwd}/{path}").trim_end_matches('/').to_owned(),
        path => below(root).or_else(|| below("/workspace")).unwrap_or(path),
    };
    format!("{root}/{}", rest.trim_matches('/')).trim_end_matches('/').to_owned()
}
