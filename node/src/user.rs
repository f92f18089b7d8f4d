//! `skerry user …`: who may log in to the MQTT broker.

use crate::cli::{UserCommand, UserName, UserPassword, UsersFile as Place};
use crate::config;
use crate::exit::Exit;
use skerry_broker::{FileError, UsersFile};
use std::io::{self, Write};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{0}")]
    Told(String),
    #[error("cannot read the password: {0}; --stdin takes it from standard input")]
    NoTerminal(io::Error),
    #[error("cannot read the password from standard input: {0}")]
    NoInput(io::Error),
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

pub fn run(command: &UserCommand) -> Exit {
    let done = match command {
        UserCommand::Add(args) => add(args),
        UserCommand::Passwd(args) => passwd(args),
        UserCommand::Remove(user) => remove(user),
        UserCommand::List(place) => list(place),
        UserCommand::Check(args) => check(args),
    };
    done.unwrap_or_else(|failure| {
        eprintln!("skerry: {failure}");
        Exit::Failed
    })
}

fn add(args: &UserPassword) -> Result<Exit, Failure> {
    let (name, path) = (&args.user.name, path(&args.user.users)?);
    // Looked at before the password is asked for, and again under the lock.
    refuse_known(&UsersFile::open(&path)?, name)?;
    let password = new_password(args)?;
    let mut users = UsersFile::open(&path)?;
    refuse_known(&users, name)?;
    users
        .set(name, password.as_bytes())
        .map_err(Failure::Told)?;
    users.save()?;
    say(&format!("{name} may log in now"))
}

fn refuse_known(users: &UsersFile, name: &str) -> Result<(), Failure> {
    match users.has(name) {
        true => Err(Failure::Told(format!(
            "there is a user `{name}` already; `skerry user passwd {name}` gives another password"
        ))),
        false => Ok(()),
    }
}

fn passwd(args: &UserPassword) -> Result<Exit, Failure> {
    let (name, path) = (&args.user.name, path(&args.user.users)?);
    known(&UsersFile::open(&path)?, name)?;
    let password = new_password(args)?;
    let mut users = UsersFile::open(&path)?;
    known(&users, name)?;
    users
        .set(name, password.as_bytes())
        .map_err(Failure::Told)?;
    users.save()?;
    say(&format!("{name} has another password now"))
}

fn remove(user: &UserName) -> Result<Exit, Failure> {
    let mut users = UsersFile::open(&path(&user.users)?)?;
    known(&users, &user.name)?;
    users.remove(&user.name);
    users.save()?;
    say(&format!("{} may not log in any more", user.name))
}

fn list(place: &Place) -> Result<Exit, Failure> {
    let users = UsersFile::open(&path(place)?)?;
    let mut out = io::stdout().lock();
    for name in users.names() {
        writeln!(out, "{name}")?;
    }
    Ok(Exit::Clean)
}

fn check(args: &UserPassword) -> Result<Exit, Failure> {
    let (name, path) = (&args.user.name, path(&args.user.users)?);
    known(&UsersFile::open(&path)?, name)?;
    let password = match args.stdin {
        true => from_stdin()?,
        false => ask("Password: ")?,
    };
    match UsersFile::open(&path)?.check(name, password.as_bytes()) {
        Some(true) => say(&format!("that is the password of {name}")),
        Some(false) => Err(Failure::Told(format!("that is not the password of {name}"))),
        None => Err(Failure::Told(format!(
            "what `{name}` has is no hash that skerry knows; `skerry user passwd {name}` sets one"
        ))),
    }
}

fn known(users: &UsersFile, name: &str) -> Result<(), Failure> {
    match users.has(name) {
        true => Ok(()),
        false => Err(Failure::Told(format!(
            "there is no user `{name}`; `skerry user list` shows who there is"
        ))),
    }
}

fn path(place: &Place) -> Result<PathBuf, Failure> {
    match &place.file {
        Some(file) => Ok(file.clone()),
        None => config::users_file(&place.config).map_err(Failure::Told),
    }
}

/// From the terminal, without echo and twice, for there it is typed blindly.
fn new_password(args: &UserPassword) -> Result<String, Failure> {
    if args.stdin {
        return from_stdin();
    }
    let password = ask(&format!("New password of {}: ", args.user.name))?;
    if password.is_empty() {
        return Err(empty());
    }
    match ask("The same again: ")? == password {
        true => Ok(password),
        false => Err(Failure::Told("the two are not the same".to_owned())),
    }
}

fn ask(prompt: &str) -> Result<String, Failure> {
    rpassword::prompt_password(prompt).map_err(Failure::NoTerminal)
}

fn from_stdin() -> Result<String, Failure> {
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(Failure::NoInput)?;
    let password = line.trim_end_matches(['\r', '\n']);
    match password.is_empty() {
        true => Err(empty()),
        false => Ok(password.to_owned()),
    }
}

fn empty() -> Failure {
    Failure::Told("an empty password is none".to_owned())
}

fn say(what: &str) -> Result<Exit, Failure> {
    writeln!(io::stdout().lock(), "{what}")?;
    Ok(Exit::Clean)
}
