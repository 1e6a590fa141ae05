//! `walrust export`: a history as a tree of Litestream.

use clap::Args;
use serde_json::json;
use walrust_history::{Export, ExportTarget, Exported};
use walrust_storage::StorageUrl;

use super::progress::progress_bar;
use super::{StorageArgs, human_bytes, print, print_json, rfc3339};
use crate::Error;
use crate::config::Config;
use crate::storage_source::open_url;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Name of the database in storage; `walrust list` shows the names
    #[arg(value_name = "NAME")]
    name: String,
    /// Empty place for the Litestream tree: s3://bucket/path or file:///directory
    #[arg(long, value_name = "URL")]
    to: String,
    /// Endpoint of the target store [default: that of the source]
    #[arg(long, value_name = "URL")]
    to_endpoint: Option<String>,
    #[command(flatten)]
    storage: StorageArgs,
    /// Export every state that leads to the newest one without a gap, not only those since the newest
    /// snapshot
    #[arg(long)]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: ExportArgs, config: &Config) -> Result<(), Error> {
    let to: StorageUrl = args.to.parse()?;
    if matches!(&to, StorageUrl::S3 { prefix, .. } if prefix.is_empty()) {
        let problem = "Litestream cannot use the root of a bucket; add a path to --to";
        return Err(Error::Usage(problem.to_owned()));
    }
    let store = args.storage.open(config).await?;
    let endpoint = args.to_endpoint.as_deref().or(args.storage.endpoint.as_deref());
    let target = ExportTarget::new(&to, open_url(&args.to, endpoint, config).await?);
    let export = Export::plan(store.as_ref(), &args.name, args.all).await?;
    let bar = progress_bar("exporting", export.plan.size());
    let exported = export.execute(store.as_ref(), &target, |read| bar.inc(read)).await;
    bar.finish_and_clear();
    let Exported { files, snapshots, bytes, timestamp_ms } = exported?;
    let (head, time) = (export.plan.head, rfc3339(timestamp_ms));
    if args.json {
        return print_json(&json!({
            "name": args.name,
            "url": store.url(),
            "to": to.to_string(),
            "layout": target.layout().to_string(),
            "txid": head.to_string(),
            "timestamp": time,
            "files": files,
            "snapshots": snapshots,
            "bytes": bytes,
        }));
    }
    print(&format!(
        "exported {} to {to}: TXID {head} of {time}, {files} files, {}\n\
         restore it with: litestream restore -o FILE {to}\n",
        args.name,
        human_bytes(bytes)
    ))
}
