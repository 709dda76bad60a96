//! Packages from the registries with machine code in them, built or fetched when they are installed, behind the walls of
//! every tier.

use mhnos_testing::{Server, Wire, host::Host};
use serde_json::json;

use crate::{abuse::strict_hosts, compatibility::STILL_AT_IT, egress::programs::Registries, options};

/// One host for each tier: installing takes long.
pub(crate) fn one_host_of_each_tier() -> impl Iterator<Item = &'static str> {
    strict_hosts().filter(|host| ["root", "masked-proc", "container", "one-user"].contains(host))
}

/// Which packages, and what shows that they work. `bufferutil` is compiled by node-gyp, as it says in its install script;
/// the headers are those that came with Node.js. esbuild's is a native program, which its postinstall script tries out. better-sqlite3
/// brings its machine code built, and wants locks and shared memory of the workspace's file system.
const PACKAGES: &str = r#"
set -eu
export HOME="$PWD" npm_config_dangerously_allow_all_scripts=true npm_config_build_from_source=true
export npm_config_nodedir="$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")"
mkdir -p app && cd app && echo '{}' > package.json
NPM install --no-audit --no-fund --foreground-scripts esbuild bufferutil better-sqlite3 >&2
test -f node_modules/bufferutil/build/Release/bufferutil.node
node -e "const b = Buffer.from([1, 2]); require('bufferutil').unmask(b, Buffer.from([3, 3, 3, 3])); console.log(b.join())"
node -e "const d = new (require('better-sqlite3'))('x.db'); d.pragma('journal_mode = WAL'); d.exec('create table t (a)')
d.transaction(() => d.prepare('insert into t values (?)').run(41))(); console.log(d.prepare('select a + 1 as b from t').get().b)"
test -s x.db
echo 'export const a: number = 1 + 1' | node_modules/.bin/esbuild --loader=ts --minify
python3 -m venv v && v/bin/pip install -q --only-binary :all: markupsafe >&2
v/bin/python -c "import markupsafe, markupsafe._speedups; print(markupsafe.escape('<'))"
"#;

#[tokio::test]
async fn packages_with_machine_code_are_installed_in_every_tier() {
    let registries = Registries::of_this_machine();
    for host in one_host_of_each_tier() {
        let server = Server::start(options().env("MHNOS_EGRESS", registries.rule()).on(host));
        let script = STILL_AT_IT.to_owned() + &PACKAGES.replace("NPM", &registries.npm);
        server.write("install.sh", format!("{}{script}", registries.environment));
        let mut wire = Wire::connect(server.address()).await;
        let options = json!({"pty": false, "timeout": 300_000});
        let pid = wire
            .spawn(json!({"processType": "shell", "command": "bash", "args": ["install.sh"], "options": options}))
            .await;
        let (stdout, stderr, exit) = wire.run_to_exit(pid).await;
        let expected = "2,1\n42\nexport const a=2;\n&lt;\n";
        assert!(
            exit["code"] == 0 && stdout.ends_with(expected),
            "{host}: {exit}\n{stdout}\n{stderr}\n{}",
            server.log()
        );
        println!("{host} ({}): done in {} ms", Host::named(host).tier.as_str(), exit["runtime"]);
    }
}
