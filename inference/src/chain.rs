//! Models that read each other's scores: what they name has to be there, and the chain to end.

use crate::config::{ASSET, Model, Problem};
use crate::input::Source;

/// What is wrong with how `models` read each other, each problem with the index of its model.
#[must_use]
pub fn chain_problems(models: &[Model]) -> Vec<(usize, Problem)> {
    let mut problems = Vec::new();
    let mut note = |index: usize, message: String| {
        let key = "inputs";
        problems.push((index, Problem { key, message }));
    };
    let named = |name: &str| models.iter().position(|model| model.name == name);
    for (index, model) in models.iter().enumerate() {
        for (name, asset) in read_by(model) {
            let Some(read) = named(name).map(|read| &models[read]) else {
                note(index, format!("no [[model]] is named `{name}`"));
                continue;
            };
            let mut assets = model.assets.iter().map(|own| asset.replace(ASSET, own));
            let unknown = assets.find(|wanted| !read.assets.contains(wanted));
            if let Some(unknown) = unknown {
                note(index, format!("`{name}` has no asset `{unknown}`"));
            }
        }
        if let Some(cycle) = cycle(models, index) {
            let names: Vec<&str> = cycle.iter().map(|at| models[*at].name.as_str()).collect();
            let names = names.join("`, which reads `");
            note(
                index,
                format!("its scores would depend on themselves: it reads `{names}`"),
            );
        }
    }
    problems
}

/// The models that this one reads, each with the asset.
fn read_by(model: &Model) -> impl Iterator<Item = (&str, &str)> {
    model.inputs.iter().filter_map(|input| match &input.source {
        Source::Model { model, asset } => Some((model.as_str(), asset.as_str())),
        Source::Opcua { .. } | Source::Mqtt { .. } => None,
    })
}

/// A way from a model along what it reads back to it.
fn cycle(models: &[Model], start: usize) -> Option<Vec<usize>> {
    let mut seen = vec![false; models.len()];
    let mut ways = vec![Vec::new()];
    while let Some(way) = ways.pop() {
        let at = *way.last().unwrap_or(&start);
        for (name, _) in read_by(&models[at]) {
            let Some(read) = models.iter().position(|model| model.name == name) else {
                continue;
            };
            let way = [&way[..], &[read]].concat();
            if read == start {
                return Some(way);
            }
            if !std::mem::replace(&mut seen[read], true) {
                ways.push(way);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::input::Input;

    /// A model of assets a and b that reads the scores of others.
    fn reading(name: &str, others: &[(&str, &str)]) -> Model {
        let mut options = fixture::options();
        options.name = name.to_owned();
        options.assets = vec!["a".to_owned(), "b".to_owned()];
        for (model, asset) in others {
            let source = Source::Model {
                model: (*model).to_owned(),
                asset: (*asset).to_owned(),
            };
            options
                .inputs
                .push(Input::new(source, options.scores.clone()));
        }
        Model::new(options).expect("good options")
    }

    fn found(models: &[Model]) -> Vec<(usize, String)> {
        let problems = chain_problems(models).into_iter();
        problems
            .map(|(index, problem)| (index, problem.message))
            .collect()
    }

    #[test]
    fn a_chain_that_ends_is_good() {
        let first = reading("first", &[]);
        let second = reading("second", &[("first", "{asset}"), ("first", "b")]);
        let third = reading("third", &[("second", "{asset}"), ("first", "a")]);
        assert_eq!(found(&[third, second, first]), []);
    }

    #[test]
    fn a_cycle_is_told_at_each_of_its_models() {
        let models = [
            reading("one", &[("two", "{asset}")]),
            reading("two", &[("three", "{asset}")]),
            reading("three", &[("one", "{asset}")]),
            reading("beside", &[("one", "{asset}")]),
        ];
        let found = found(&models);
        let told: Vec<usize> = found.iter().map(|(index, _)| *index).collect();
        assert_eq!(told, [0, 1, 2], "{found:?}");
        assert!(
            found[0]
                .1
                .ends_with("it reads `two`, which reads `three`, which reads `one`"),
            "{found:?}"
        );
        assert_eq!(chain_problems(&[reading("own", &[("own", "a")])]).len(), 1);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let models = [
            reading("one", &[("nobody", "a")]),
            reading("two", &[("one", "c")]),
        ];
        let expected = [
            (0, "no [[model]] is named `nobody`".to_owned()),
            (1, "`one` has no asset `c`".to_owned()),
        ];
        assert_eq!(found(&models), expected);
    }
}
