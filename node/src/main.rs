//! `skerry`: an edge node for sites that are often cut off.

#![expect(
    unreachable_pub,
    reason = "a binary has no outside to be reachable from"
)]

mod cli;
mod clock;
mod component;
mod config;
#[cfg_attr(not(feature = "demo"), path = "demo/absent.rs")]
mod demo;
mod exit;
mod first_boot;
mod http;
mod logging;
mod logs;
mod metrics;
#[cfg_attr(not(feature = "inference"), path = "model/absent.rs")]
mod model;
mod observer;
#[cfg_attr(not(feature = "opcua"), path = "opcua/absent.rs")]
mod opcua;
mod outlook;
mod panics;
mod quarantine;
mod rate;
mod reload;
mod run;
mod status;
mod supervise;
mod unpack;
mod uplink;
mod user;
mod view;

use clap::Parser;
use cli::{Cli, Command};
use config::{Config, Severity};
use exit::Exit;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::init();
    panics::install_hook();
    let exit = match cli.command {
        Command::Run(args) => {
            let path = args.config.path();
            match load(&path) {
                Ok(config) => {
                    for warning in config.warnings() {
                        tracing::warn!("{warning}");
                    }
                    run::run(config, &path, args.until_stdin_closes)
                }
                Err(exit) => exit,
            }
        }
        Command::Check(file) => check(&file.path()),
        Command::FirstBoot(args) => first_boot::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Status(args) => status::run(&args),
        Command::Log(command) => logs::run(&command),
        Command::Quarantine(command) => quarantine::run(&command),
        Command::Opcua(args) => opcua::run(&args),
        Command::Uplink(command) => uplink::run(&command),
        Command::Unpack(args) => unpack::run(&args),
        Command::User(command) => user::run(&command),
        Command::Model(args) => model::run(&args),
        Command::ModelHost => model::host(),
        Command::Version => {
            println!("skerry {}", component::version());
            Exit::Clean
        }
    };
    exit.into()
}

fn load(path: &Path) -> Result<Config, Exit> {
    Config::load(path).map_err(|error| {
        eprintln!("{error}");
        Exit::Usage
    })
}

/// All that can be known without running: the file, then the models it names.
fn check(path: &Path) -> Exit {
    let config = match load(path) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let mut exit = Exit::Clean;
    for remark in &config.remarks {
        eprintln!("{remark}");
        if remark.severity == Severity::Wrong {
            exit = Exit::Usage;
        }
    }
    for problem in model::problems(&config.models) {
        eprintln!("{}: {problem}", path.display());
        exit = Exit::Usage;
    }
    let shadows = model::shadow_problems(&config.models);
    for warning in config.warnings().into_iter().chain(shadows) {
        eprintln!("{}: warning: {warning}", path.display());
    }
    if exit == Exit::Clean {
        println!("{}", config.summary(path));
    }
    exit
}
