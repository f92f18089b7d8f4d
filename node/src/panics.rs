//! A panic never leaves a zombie: either somebody catches it by design, or the process ends.

use crate::exit::Exit;

/// Threads whose panics are caught and turned into a state: async tasks (their supervisor sees
/// the join error) and model runners (the model is disabled).
const CAUGHT_BY_NAME: [&str; 2] = ["skerry-worker", "model-"];

/// Ends the process when a thread panics that nobody watches, such as the fan-out router's or
/// the log writer's, so that systemd starts it into recovery.
pub fn install_hook() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("");
        let caught = name == "main" || CAUGHT_BY_NAME.iter().any(|known| name.starts_with(known));
        if !caught {
            eprintln!("skerry: thread `{name}` panicked; ending so that a restart recovers");
            std::process::exit(Exit::Panicked as i32);
        }
    }));
}
