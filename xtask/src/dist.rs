//! `dist`: the release, as a directory, a tarball, a Debian package and their checksums.
//!
//! Reproducible: built from the same sources with the same compiler, the same bytes come out wherever and whenever. So
//! paths of this machine are remapped, the time is that of the commit (`SOURCE_DATE_EPOCH` wins), and archives are sorted,
//! owned by root and without names of accounts.

mod sbom;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, ensure};

/// From the checkout into the release, as they are.
const FILES: &[&str] = &[
    "install.sh",
    "package.json",
    "LICENSE",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/audit.md",
    "docs/configuration.md",
    "docs/metrics.md",
    "docs/network.md",
    "docs/operations.md",
    "docs/protocol.md",
    "docs/threat-model.md",
    "deploy/systemd/mhnos-runtime.service",
    "deploy/systemd/apparmor",
    "deploy/systemd/runtime.env",
    "deploy/docker/seccomp.json",
    "deploy/docker/apparmor",
    "deploy/npm/start",
    "deploy/tools/install",
    "deploy/tools/package.json",
    "deploy/tools/package-lock.json",
];

/// For who has a release and no sources: it promises what is there. Its links are those of where it lies, until it is at the top.
const README: &str = "deploy/release/README.md";
const UP: &str = "](../../";

/// What the program says of itself, and where that belongs below a prefix.
const GENERATED: &[(&str, &str)] = &[
    ("man", "share/man/man1/mhnos-runtime.1"),
    ("bash", "share/bash-completion/completions/mhnos-runtime"),
    ("zsh", "share/zsh/site-functions/_mhnos-runtime"),
    ("fish", "share/fish/vendor_completions.d/mhnos-runtime.fish"),
];

pub(crate) fn run(root: &Path, arguments: &[String]) -> Result<ExitCode> {
    let out = arguments.first().map_or_else(|| root.join("target/release-files"), PathBuf::from);
    fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let out = out.canonicalize()?;
    let epoch = epoch(root)?;
    let program = build(root, &epoch)?;
    let version = sbom::version(root)?;
    let name = format!("mhnos-runtime-{version}-{}-linux", std::env::consts::ARCH);
    remove_earlier(&out)?;
    let tree = out.join(&name);
    fill(root, &tree, &program)?;
    fs::write(tree.join("sbom.spdx"), sbom::document(root, &epoch)?)?;
    let tarball = format!("{name}.tar.gz");
    archive(&out, &name, &tarball, &epoch)?;
    let package = debian(root, &out, &tree, &version, &epoch)?;
    checksums(&out, &[&tarball, &package])?;
    println!("{}", out.display());
    Ok(ExitCode::SUCCESS)
}

/// What earlier builds, of other versions too, have left: who takes what is there by a pattern takes one release.
fn remove_earlier(out: &Path) -> Result<()> {
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(of_a_release) {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        };
        removed.with_context(|| entry.path().display().to_string())?;
    }
    Ok(())
}

/// A name that `dist` gives. The directory may be anybody's, with other things in it.
fn of_a_release(name: &str) -> bool {
    let is = |prefix: &str, suffixes: &[&str]| {
        name.strip_prefix(prefix).is_some_and(|rest| suffixes.iter().any(|suffix| rest.ends_with(suffix)))
    };
    is("mhnos-runtime-", &["-linux", "-linux.tar.gz"]) || is("mhnos-runtime_", &[".deb"])
}

/// Seconds since 1970: of the variable, else of the commit.
fn epoch(root: &Path) -> Result<String> {
    if let Ok(given) = std::env::var("SOURCE_DATE_EPOCH") {
        return Ok(given);
    }
    output(Command::new("git").args(["log", "-1", "--format=%ct"]).current_dir(root))
}

fn build(root: &Path, epoch: &str) -> Result<PathBuf> {
    let target = root.join("target/dist-build");
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(root))?;
    let home = std::env::var("CARGO_HOME")
        .or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let remap = [(root.display().to_string(), "/src"), (home, "/cargo"), (sysroot, "/rust")];
    let flags = remap.map(|(from, to)| format!("--remap-path-prefix={from}={to}")).join("\u{1f}");
    call(
        Command::new("cargo")
            .args(["build", "--locked", "--profile", "dist", "--package", "mhnos-runtime"])
            .env("CARGO_ENCODED_RUSTFLAGS", flags)
            .env("CARGO_TARGET_DIR", &target)
            .env("SOURCE_DATE_EPOCH", epoch)
            .current_dir(root),
    )?;
    Ok(target.join("dist/mhnos-runtime"))
}

fn fill(root: &Path, tree: &Path, program: &Path) -> Result<()> {
    let place = |from: &Path, to: &str| {
        let to = tree.join(to);
        fs::create_dir_all(to.parent().context("a file has a directory")?)?;
        fs::copy(from, &to).with_context(|| from.display().to_string())?;
        anyhow::Ok(())
    };
    for file in FILES {
        place(&root.join(file), file)?;
    }
    let readme = fs::read_to_string(root.join(README)).context(README)?;
    fs::write(tree.join("README.md"), readme.replace(UP, "]("))?;
    place(program, "bin/mhnos-runtime")?;
    for (what, to) in GENERATED {
        let text = Command::new(program).args(["generate", what]).output().context("the program")?;
        ensure!(text.status.success(), "generate {what}: {}", String::from_utf8_lossy(&text.stderr));
        let to = tree.join(to);
        fs::create_dir_all(to.parent().context("a file has a directory")?)?;
        fs::write(to, text.stdout)?;
    }
    call(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(tree))
}

fn archive(out: &Path, name: &str, tarball: &str, epoch: &str) -> Result<()> {
    let tar = out.join(format!("{name}.tar"));
    call(
        Command::new("tar")
            .args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=ustar"])
            .arg(format!("--mtime=@{epoch}"))
            .arg("-cf")
            .arg(&tar)
            .arg(name)
            .current_dir(out),
    )?;
    call(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(&tar))?;
    debug_assert!(out.join(tarball).exists());
    Ok(())
}

/// The package with the same unit. Programs other than those of Debian come by its README: `install.sh` or npm.
fn debian(root: &Path, out: &Path, tree: &Path, version: &str, epoch: &str) -> Result<String> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let stage = out.join("debian");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    let put = |from: PathBuf, to: &str| {
        let to = stage.join(to);
        fs::create_dir_all(to.parent().context("a file has a directory")?)?;
        fs::copy(&from, &to).with_context(|| from.display().to_string())?;
        anyhow::Ok(to)
    };
    put(tree.join("bin/mhnos-runtime"), "usr/bin/mhnos-runtime")?;
    for (_, file) in GENERATED {
        let place = file.replace("zsh/site-functions", "zsh/vendor-completions");
        put(tree.join(file), &format!("usr/{place}"))?;
    }
    put(root.join("LICENSE"), "usr/share/doc/mhnos-runtime/copyright")?;
    for file in ["deploy/tools/install", "deploy/tools/package.json", "deploy/tools/package-lock.json"] {
        put(root.join(file), &format!("usr/share/mhnos-runtime/{}", file.trim_start_matches("deploy/")))?;
    }
    let unit = put(
        root.join("deploy/systemd/mhnos-runtime.service"),
        "usr/lib/systemd/system/mhnos-runtime.service",
    )?;
    let text = fs::read_to_string(&unit)?.replace("/usr/local/bin/mhnos-runtime", "/usr/bin/mhnos-runtime");
    fs::write(&unit, text.replace("/usr/local/lib/mhnos-runtime", "/usr/lib/mhnos-runtime"))?;
    let profile = put(root.join("deploy/systemd/apparmor"), "usr/share/mhnos-runtime/apparmor")?;
    let text = fs::read_to_string(&profile)?.replace("@PROGRAM@", "/usr/bin/mhnos-runtime");
    fs::write(&profile, text)?;
    for script in ["control", "postinst", "prerm", "postrm", "conffiles"] {
        let to = put(root.join("deploy/debian").join(script), &format!("DEBIAN/{script}"))?;
        if script == "control" {
            let text = fs::read_to_string(&to)?;
            let text = text.replace("@VERSION@", version).replace("@ARCHITECTURE@", architecture);
            let symbols = output(Command::new("objdump").arg("-T").arg(tree.join("bin/mhnos-runtime")))?;
            let glibc = newest_glibc(&symbols).context("the program has no C library")?;
            fs::write(&to, text.replace("@GLIBC@", &glibc))?;
        }
    }
    put(root.join("deploy/systemd/runtime.env"), "etc/mhnos/runtime.env")?;
    call(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&stage))?;
    let name = format!("mhnos-runtime_{version}_{architecture}.deb");
    call(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .arg(&stage)
            .arg(out.join(&name))
            .env("SOURCE_DATE_EPOCH", epoch),
    )?;
    fs::remove_dir_all(&stage)?;
    Ok(name)
}

/// The C library that a program needs: the newest version of those its symbols name.
fn newest_glibc(symbols: &str) -> Option<String> {
    let version = |word: &str| -> Option<Vec<u32>> {
        let numbers = word.trim_matches(['(', ')']).strip_prefix("GLIBC_")?;
        numbers.split('.').map(|number| number.parse().ok()).collect()
    };
    let newest = symbols.split_whitespace().filter_map(version).max()?;
    Some(newest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

fn checksums(out: &Path, files: &[&str]) -> Result<()> {
    let sums = output(Command::new("sha256sum").args(files).current_dir(out))?;
    println!("{sums}");
    fs::write(out.join("SHA256SUMS"), sums + "\n").context("SHA256SUMS")
}

fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{FILES, README, UP, newest_glibc, of_a_release, remove_earlier, sbom};

    fn read(file: &str) -> String {
        std::fs::read_to_string(crate::root().join(file)).expect(file)
    }

    #[test]
    fn the_releases_readme_names_what_the_release_has() {
        let text = read(README);
        let links = text.split(UP).skip(1).map(|rest| rest.split(')').next().expect("an end"));
        let missing: Vec<&str> = links.filter(|link| !FILES.contains(link)).collect();
        assert!(text.contains("](../../docs/operations.md)") && missing.is_empty(), "{missing:?}");
        assert_eq!(text.matches("](").count(), text.matches(UP).count(), "links to elsewhere");
        for command in ["make ", "docker-compose ", "cargo "] {
            assert!(!text.contains(command), "{command}takes a checkout");
        }
    }

    #[test]
    fn a_release_is_the_only_one_where_it_is_put() {
        let out = std::env::temp_dir().join(format!("mhnos-dist-{}", std::process::id()));
        let kept = ["SHA256SUMS", "mhnos-runtime-main", "other-1.0-linux.tar.gz"];
        for directory in ["mhnos-runtime-0.0.9-x86_64-linux/bin", "mhnos-runtime-main"] {
            std::fs::create_dir_all(out.join(directory)).expect(directory);
        }
        for file in
            ["mhnos-runtime-0.0.9-x86_64-linux.tar.gz", "mhnos-runtime_0.0.9_amd64.deb", kept[0], kept[2]]
        {
            std::fs::write(out.join(file), "").expect(file);
        }
        let removed = remove_earlier(&out);
        let left = std::fs::read_dir(&out)
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let mut left: Vec<String> = left.collect();
        left.sort();
        std::fs::remove_dir_all(&out).expect("it is ours");
        removed.expect("nothing in the way");
        assert_eq!(left, kept);
        assert!(of_a_release("mhnos-runtime_0.1.0_arm64.deb") && !of_a_release("mhnos-runtime"));
    }

    #[test]
    fn the_images_version_is_the_programs() {
        let version = sbom::version(&crate::root()).expect("cargo");
        assert!(read("Dockerfile").contains(&format!("\nARG VERSION={version}\n")), "{version}");
    }

    #[test]
    fn the_newest_version_is_by_number_and_private_ones_are_none() {
        let symbols = "DF *UND* 0 (GLIBC_2.4) a\nDF *UND* 0 (GLIBC_2.34) b\nDF *UND* 0 GLIBC_2.5 c\n\
                       DF *UND* 0 (GLIBC_PRIVATE) d\nDF *UND* 0 (GLIBC_2.2.5) e\nDF *UND* 0 (GCC_3.0) f\n";
        assert_eq!(newest_glibc(symbols).as_deref(), Some("2.34"));
        assert_eq!(newest_glibc("no symbols"), None);
    }
}
