//! `skerry opcua …`: what an engineer needs before there is a config.

use crate::cli::{Browse, OpcuaCommand};
use crate::exit::Exit;
use skerry_bridge::opcua;

pub fn run(command: &OpcuaCommand) -> Exit {
    let OpcuaCommand::Browse(args) = command;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(browse(args)),
        Err(error) => {
            eprintln!("skerry: cannot start: {error}");
            Exit::Failed
        }
    }
}

async fn browse(args: &Browse) -> Exit {
    let endpoint: opcua::EndpointUrl = match args.url.parse() {
        Ok(endpoint) => endpoint,
        Err(why) => {
            eprintln!("skerry: {why}");
            return Exit::Usage;
        }
    };
    let mut look = opcua::Browse::new(endpoint);
    look.depth_max = args.depth;
    look.variables_max = args.nodes;
    let listing = match tokio::time::timeout(args.timeout, opcua::browse(&look)).await {
        Ok(Ok(listing)) => listing,
        Ok(Err(error)) => {
            eprintln!("skerry: {}: {error}", args.url);
            return Exit::Failed;
        }
        Err(_) => {
            eprintln!(
                "skerry: {} has not answered within {:?}; is it the right address and port? \
                 --timeout waits longer",
                args.url, args.timeout
            );
            return Exit::Failed;
        }
    };
    print!("{}", opcua::config_text(&look, "plc", &listing));
    if listing.truncated {
        eprintln!("skerry: the list is cut short; --depth and --nodes look further");
    }
    Exit::Clean
}
