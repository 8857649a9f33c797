//! What does a kubeconfig say now? A client that is made again when the file,
//! or a certificate or key that it names, differs.
//!
//! kube-rs reads certificates once; tokens it reads again by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::Mutex;

use super::connect::ConnectError;

/// Size and time of a file; `None` while there is none.
type Stamp = Vec<Option<(u64, SystemTime)>>;

/// A client and what it was made from.
struct Made {
    client: kube::Client,
    files: Vec<PathBuf>,
    stamp: Stamp,
}

/// A client that follows a kubeconfig.
pub async fn client(path: &Path) -> Result<kube::Client, ConnectError> {
    let path: Arc<Path> = path.into();
    let made = Arc::new(Mutex::new(make(&path).await?));
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (path, made) = (Arc::clone(&path), Arc::clone(&made));
        async move {
            let client = current(&path, &made).await;
            client.send(request).await
        }
    });
    Ok(kube::Client::new(service, "default"))
}

/// The client for what the files say now; while they cannot be used, the one
/// before.
async fn current(path: &Path, made: &Mutex<Made>) -> kube::Client {
    let mut made = made.lock().await;
    if stamp(&made.files) != made.stamp {
        match make(path).await {
            Ok(new) => *made = new,
            Err(error) => tracing::warn!(%error, "kubeconfig changed and cannot be used"),
        }
    }
    made.client.clone()
}

async fn make(path: &Path) -> Result<Made, ConnectError> {
    let wrong = |source| ConnectError::Kubeconfig { path: path.display().to_string(), source };
    let file = Kubeconfig::read_from(path).map_err(wrong)?;
    let files = files(path, &file);
    // Before the files are read: what changes meanwhile is noticed next time.
    let stamp = stamp(&files);
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(wrong)?;
    crate::client::install_provider();
    let client = kube::Client::try_from(config).map_err(|e| ConnectError::Kube(Box::new(e)))?;
    Ok(Made { client, files, stamp })
}

/// The kubeconfig and the certificates and keys that it names; their paths are
/// absolute once it was read.
fn files(path: &Path, config: &Kubeconfig) -> Vec<PathBuf> {
    let clusters = config.clusters.iter().filter_map(|c| c.cluster.as_ref());
    let users = config.auth_infos.iter().filter_map(|u| u.auth_info.as_ref());
    let named = clusters
        .filter_map(|c| c.certificate_authority.clone())
        .chain(users.flat_map(|u| [u.client_certificate.clone(), u.client_key.clone()]).flatten());
    std::iter::once(path.to_owned()).chain(named.map(PathBuf::from)).collect()
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let of = |file: &PathBuf| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.len(), meta.modified().ok()?))
    };
    files.iter().map(of).collect()
}
