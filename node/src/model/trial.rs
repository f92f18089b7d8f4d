//! `skerry model check` and `bench`: a model file by itself.

use super::arguments::{ModelBench, ModelCheck, ModelFile};
use crate::config::{Config, Models};
use crate::exit::Exit;
use crate::logs::Failure;
use bytesize::ByteSize;
use serde_json::json;
use skerry_inference::{Budget, Error, HostCommand, Model, ModelInfo, Output, Trial};
use std::path::Path;

pub(super) fn check(args: &ModelCheck) -> Result<Exit, Failure> {
    let info = trial(&args.of)?.check(&HostCommand::default())?;
    match args.of.json {
        true => println!("{}", json!(info)),
        false => println!("{}", in_words(&info)),
    }
    Ok(Exit::Clean)
}

pub(super) fn bench(args: &ModelBench) -> Result<Exit, Failure> {
    let trial = trial(&args.of)?;
    let (info, bench) = trial.bench(&HostCommand::default(), args.windows as usize)?;
    if args.of.json {
        println!("{}", json!({ "model": info, "bench": bench }));
        return Ok(Exit::Clean);
    }
    let micros = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), |us| format!("{us} us"));
    println!("{}", in_words(&info));
    println!(
        "windows   {}: p50 {} and p99 {} in the model; p50 {} and p99 {} to its process and back",
        bench.windows,
        micros(bench.run_p50_us),
        micros(bench.run_p99_us),
        micros(bench.whole_p50_us),
        micros(bench.whole_p99_us),
    );
    Ok(Exit::Clean)
}

fn trial(args: &ModelFile) -> Result<Trial, Failure> {
    let mut trial = match &args.bound {
        Some(name) => configured(&Config::load(&args.config)?, &args.config, name)?.trial(),
        None => Trial {
            file: args.file.clone(),
            shape: args.window.zip(args.columns),
            output: Output::default(),
            budget: Budget::default(),
        },
    };
    trial.file.clone_from(&args.file);
    Ok(trial)
}

/// Why models of a config would not run, each in a line.
pub fn problems(models: &Models) -> Vec<String> {
    let checked = models.models.iter().map(|model| {
        let told = |error| format!("model `{}`: {error}", model.name);
        model.check(&models.host).err().map(told)
    });
    checked.flatten().collect()
}

/// Why versions that are to run beside models would not, each in a line. No model waits for one.
pub fn shadow_problems(models: &Models) -> Vec<String> {
    let checked = models.models.iter().map(|model| {
        let shadow = model.shadow.as_deref().unwrap_or_default();
        let told = |why| {
            format!(
                "model `{}` runs without its shadow, {shadow}: {why}",
                model.name
            )
        };
        models.check_shadow(model).err().map(told)
    });
    checked.flatten().collect()
}

/// A model of the config by its name.
pub(super) fn configured(config: &Config, path: &Path, name: &str) -> Result<Model, Failure> {
    let mut models = config.models.models.iter();
    let found = models.find(|model| model.name == name).cloned();
    found.ok_or_else(|| {
        Failure::Told(format!(
            "{} has no [[model]] named `{name}`",
            path.display()
        ))
    })
}

fn in_words(info: &ModelInfo) -> String {
    let golden = match (info.golden_cases, info.golden_time_max) {
        (None, _) => "none: nothing proves that it is run rightly".to_owned(),
        (Some(cases), None) => format!("{cases} cases agree"),
        (Some(cases), Some(took)) => format!("{cases} cases agree, the slowest took {took:?}"),
    };
    format!(
        "version   {}\nsha256    {}\nfile      {}\nwindow    {} rows of {}\ngolden    {golden}\n\
         memory    {} besides its windows\nloading   {:?}",
        info.version.as_deref().unwrap_or("none: a plain file"),
        info.sha256,
        ByteSize::b(info.file_bytes),
        info.rows,
        info.columns,
        ByteSize::b(info.held_bytes),
        info.load_time,
    )
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Told(error.to_string())
    }
}
