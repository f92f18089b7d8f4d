//! `skerry first-boot`: a node is set up by a USB stick, or by the boot partition of its SD card,
//! with nobody at it who knows what a config file is.
//!
//! ```text
//!  stick: skerry.toml ─► {placeholders} ─► into/.first-boot/ ─► `skerry check` ─► into/
//!         nodes.csv ───────┘      ▲         credentials, files        │
//!         credentials/ …          │                                   ▼
//!                        machine id, MAC …           console, skerry-result.txt on the stick
//! ```
//!
//! Nothing is taken over before everything is found to be right, by the same program that will
//! read it; a configuration that is there is only replaced by who has a login on the box. Whoever
//! can put a stick in can thus set up a new box, and not touch one that works.

mod fleet;
mod machine;
mod result;
mod stick;
mod takeover;
mod template;

use crate::cli::FirstBoot;
use crate::config::{Problem, Report};
use crate::exit::Exit;
use machine::Machine;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use stick::{CONFIG, CREDENTIALS, Stick};
use takeover::Takeover;
use template::Variables;

/// Why a box is not set up.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Wrong(#[from] Report),
    #[error("{0}")]
    Check(String),
    #[error(
        "{} is not called {CONFIG}, in small letters and with nothing after it; Windows hides the \
         end of a name unless it is told to show it", .0.display()
    )]
    Misnamed(PathBuf),
    #[error("{} {what}", path.display())]
    Unusable { path: PathBuf, what: &'static str },
    #[error("{} is larger than {}", path.display(), bytesize::ByteSize::b(*most))]
    TooLarge { path: PathBuf, most: u64 },
    #[error(
        "{} is there already, and is not as on the stick. It stays as it is: a box that works is \
         only changed by who has a login on it (`skerry first-boot --replace --from DIR`)",
        .0.display()
    )]
    Configured(PathBuf),
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Refusal {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether the stick is to blame, or this box, or nobody.
    const fn exit(&self) -> Exit {
        match self {
            Self::Wrong(_)
            | Self::Check(_)
            | Self::Misnamed(_)
            | Self::Unusable { .. }
            | Self::TooLarge { .. } => Exit::Usage,
            // So it is at every start of a box whose stick stays in.
            Self::Configured(_) => Exit::Clean,
            Self::Io { .. } => Exit::Failed,
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            ". Its file system is mounted read-only: mount it writable for the first start, or put \
             the configuration into the image"
        }
        io::ErrorKind::StorageFull => ". Make room there, and start again",
        io::ErrorKind::PermissionDenied => ". It takes root",
        _ => "",
    }
}

/// What came of a stick that was right.
enum Done {
    /// It has been set up so before.
    Before,
    SetUp(SetUp),
}

struct SetUp {
    name: String,
    /// Besides the configuration.
    files: Vec<String>,
    /// What is right, but hardly meant, or could not be done; for a person.
    remarks: Vec<String>,
}

pub fn run(args: &FirstBoot) -> Exit {
    let machine = Machine::read(&args.root);
    let stick = match Stick::find(&args.from) {
        Ok(Some(stick)) => stick,
        Ok(None) => {
            let folders: Vec<_> = args
                .from
                .iter()
                .map(|it| it.display().to_string())
                .collect();
            println!(
                "skerry: no {CONFIG} in {}: nothing to set up",
                folders.join(", ")
            );
            return Exit::Clean;
        }
        Err(refusal) => {
            let folder = match &refusal {
                Refusal::Misnamed(path) => path.parent().map(Path::to_owned),
                _ => None,
            };
            return finish(folder.as_deref(), &machine, Err(refusal));
        }
    };
    let outcome = set_up(args, &stick, &machine);
    finish(Some(&stick.folder), &machine, outcome)
}

fn set_up(args: &FirstBoot, stick: &Stick, machine: &Machine) -> Result<Done, Refusal> {
    let variables = variables(stick, machine)?;
    let config = template::fill_in(&stick.config_path(), &stick.config()?, &variables)?;
    let takeover = Takeover {
        into: &args.into,
        config: &config,
        files: &stick.files(&config)?,
        credentials: &stick.credentials(&config)?,
    };
    missing_credentials(stick, &takeover)?;
    if takeover.is_done() {
        return Ok(Done::Before);
    }
    if !args.replace {
        let there = existing(args).or_else(|| takeover.conflict());
        if let Some(path) = there {
            return Err(Refusal::Configured(path));
        }
    }
    let staged = takeover.stage()?;
    let remarks = check(&staged, stick)?;
    if let Some(drop_in) = &args.drop_in {
        write_drop_in(drop_in, &takeover)?;
    }
    staged.publish()?;
    let mut remarks: Vec<_> = remarks.lines().map(str::to_owned).collect();
    if args.remove_credentials {
        remarks.extend(remove_credentials(stick, &takeover));
    }
    if let Some(unit) = &args.then_start {
        remarks.extend(start(unit));
    }
    let credentials = takeover.credentials.iter();
    let credentials = credentials.map(|(name, _)| format!("{CREDENTIALS}/{name}"));
    let files = takeover.files.iter().map(|(name, _)| name.clone());
    Ok(Done::SetUp(SetUp {
        name: node_name(&config),
        files: credentials.chain(files).collect(),
        remarks,
    }))
}

/// What this box has for each placeholder.
fn variables(stick: &Stick, machine: &Machine) -> Result<Variables, Refusal> {
    let built_in = [
        ("machine", machine.id.clone()),
        ("hostname", machine.hostname.clone()),
        ("serial", machine.serial.clone()),
        ("mac", machine.mac().map(|mac| machine::plain(&mac))),
    ];
    let mut variables: Variables = built_in
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    if let Some((path, text)) = stick.nodes()? {
        let row = fleet::row_of(&path, &text, &machine.known_by())?;
        for (name, value) in row.values {
            let empty = || format!("is empty in line {} of {}", row.line, stick::NODES);
            let value = Some(value).filter(|value| !value.is_empty());
            variables.insert(name, value.ok_or_else(empty));
        }
    }
    Ok(variables)
}

/// Refuses a config that names credentials which are neither on the stick nor here.
fn missing_credentials(stick: &Stick, takeover: &Takeover<'_>) -> Result<(), Refusal> {
    let is_there = |name: &str| {
        let on_the_stick = takeover.credentials.iter().any(|(there, _)| there == name);
        on_the_stick || takeover.into.join(CREDENTIALS).join(name).is_file()
    };
    let problems: Vec<_> = template::credentials(takeover.config)
        .filter(|(_, name)| !is_there(name))
        .map(|(line, name)| Problem {
            line,
            key: format!("credential:{name}"),
            message: format!(
                "is not on the stick: put it into {}",
                stick.folder.join(CREDENTIALS).display()
            ),
        })
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Refusal::Wrong(Report {
            path: stick.config_path(),
            problems,
        })),
    }
}

/// The configuration that is there, unless it is the example that nobody has touched.
fn existing(args: &FirstBoot) -> Option<PathBuf> {
    let path = args.into.join(CONFIG);
    let example = args.example.as_ref().and_then(|path| fs::read(path).ok());
    let is_example = example.is_some_and(|example| fs::read(&path).is_ok_and(|it| it == example));
    (path.symlink_metadata().is_ok() && !is_example).then_some(path)
}

/// What `skerry check` says of it all, in the words of the stick.
fn check(staged: &takeover::Staged<'_>, stick: &Stick) -> Result<String, Refusal> {
    let this = std::env::current_exe().map_err(Refusal::io("find", Path::new("/proc/self/exe")))?;
    let output = Command::new(&this)
        .arg("check")
        .arg(staged.config())
        .env("CREDENTIALS_DIRECTORY", staged.credentials())
        .stdin(Stdio::null())
        .output()
        .map_err(Refusal::io("run", &this))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let there = staged.folder.display().to_string();
    let text = text.replace(&there, &stick.folder.display().to_string());
    match output.status.success() {
        true => Ok(text),
        false if text.trim().is_empty() => Err(Refusal::Check(format!(
            "`skerry check` ended with {}",
            output.status
        ))),
        false => Err(Refusal::Check(text)),
    }
}

/// The node has no right to read what is root's; systemd hands it over.
fn write_drop_in(path: &Path, takeover: &Takeover<'_>) -> Result<(), Refusal> {
    if takeover.credentials.is_empty() && !path.exists() {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(Refusal::io("make the folder", folder))?;
    }
    let mut text = "# Written by `skerry first-boot`.\n[Service]\n".to_owned();
    for (name, _) in takeover.credentials {
        let file = takeover.into.join(CREDENTIALS).join(name);
        text.push_str(&format!("LoadCredential={name}:{}\n", file.display()));
    }
    takeover::replace(path, text.as_bytes(), 0o644)
}

/// Tells of those that stay, if any do.
fn remove_credentials(stick: &Stick, takeover: &Takeover<'_>) -> Vec<String> {
    let names = takeover.credentials.iter().map(|(name, _)| name);
    let paths = names.map(|name| stick.folder.join(CREDENTIALS).join(name));
    let failed = |path: PathBuf| {
        let error = fs::remove_file(&path).err()?;
        Some(format!(
            "{} could not be removed: {error}; do it yourself",
            path.display()
        ))
    };
    paths.filter_map(failed).collect()
}

/// Has systemd read its units anew, and start `unit` with what is there now.
fn start(unit: &str) -> Option<String> {
    let asked = [&["daemon-reload"][..], &["--no-block", "restart", unit]];
    asked.iter().find_map(|arguments| {
        let run = Command::new("systemctl")
            .args(*arguments)
            .stdin(Stdio::null())
            .status();
        let why = match run {
            Ok(status) if status.success() => return None,
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let command = arguments.join(" ");
        Some(format!(
            "`systemctl {command}` failed ({why}): switch the box off and on"
        ))
    })
}

fn node_name(config: &str) -> String {
    let table = config.parse::<toml::Table>().unwrap_or_default();
    let name = table
        .get("node")
        .and_then(|node| node.get("name")?.as_str());
    name.unwrap_or_default().to_owned()
}

/// Tells it on the console and on the stick.
fn finish(folder: Option<&Path>, machine: &Machine, outcome: Result<Done, Refusal>) -> Exit {
    let from = folder.map_or_else(String::new, |folder| format!(" from {}", folder.display()));
    let (exit, text) = match &outcome {
        Ok(Done::Before) => (
            Exit::Clean,
            format!("This box has been set up{from} before, and nothing has changed."),
        ),
        Ok(Done::SetUp(done)) => (Exit::Clean, set_up_text(done, &from)),
        Err(refusal) => (refusal.exit(), refused_text(refusal, &from)),
    };
    let text = format!(
        "{text}\nThis box: {machine}\nskerry {}",
        env!("CARGO_PKG_VERSION")
    );
    match &outcome {
        Ok(_) => println!("skerry: {text}"),
        Err(_) => eprintln!("skerry: {text}"),
    }
    // What came of it the first time is worth more than that nothing came of it since.
    let is_news = !matches!(outcome, Ok(Done::Before));
    let told = folder.map(|folder| result::tell(folder, machine, &text, is_news));
    if let Some(Err(error)) = told {
        println!("skerry: this could not be told on the stick: {error}");
    }
    exit
}

fn set_up_text(done: &SetUp, from: &str) -> String {
    let mut lines = vec![format!("This box is set up{from} as `{}`.", done.name)];
    if !done.files.is_empty() {
        lines.push(format!("Taken over besides: {}", done.files.join(", ")));
    }
    lines.extend(done.remarks.iter().cloned());
    lines.join("\n")
}

fn refused_text(refusal: &Refusal, from: &str) -> String {
    let advice = match refusal.exit() {
        Exit::Usage => {
            "Nothing was changed. Mend it at any computer, put it in again, and switch the box off \
             and on."
        }
        Exit::Clean => "Nothing was changed.",
        _ => "It is tried again at the next start.",
    };
    let why = refusal.to_string();
    format!(
        "This box is NOT set up{from}.\n{}\n{advice}",
        why.trim_end()
    )
}
