//! A real nginx that ends TLS and forwards hosts' certificates, as operators would set it up.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::child::{self, Child, Directory};
use crate::eventually::eventually;
use crate::haproxy::{START_DEADLINE, Terminated};

/// A running nginx.
#[derive(Debug)]
pub struct NginxProcess {
    child: Child,
    // Dropped, and so removed, after the child.
    _directory: Directory,
}

impl NginxProcess {
    /// Listens on `listen`, verifies hosts' certificates, passes requests on to the proxied door, to which
    /// it shows `proxy_certificate` (files of certificate and key).
    pub async fn start(
        listen: SocketAddr,
        door: SocketAddr,
        files: &Terminated,
        (proxy_certificate, proxy_key): (&Path, &Path),
    ) -> Result<Self> {
        let directory = Directory::create("nginx")?;
        let at = directory.path().display();
        let Terminated { certificate, key, client_ca, server_ca } = files;
        let text = format!(
            "daemon off;
master_process off;
pid {at}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;
    client_max_body_size 8m;
    server {{
        listen {listen} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_client_certificate {client_ca};
        ssl_verify_client optional;
        location / {{
            proxy_pass https://{door};
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_ssl_certificate {proxy_certificate};
            proxy_ssl_certificate_key {proxy_key};
            proxy_ssl_trusted_certificate {server_ca};
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
        }}
    }}
}}
",
            certificate = certificate.display(),
            key = key.display(),
            client_ca = client_ca.display(),
            server_ca = server_ca.display(),
            proxy_certificate = proxy_certificate.display(),
            proxy_key = proxy_key.display(),
        );
        let file = directory.path().join("nginx.conf");
        fs::write(&file, text)?;
        let program = ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx"]
            .into_iter()
            .map(Path::new)
            .find(|path| path.exists())
            .context("nginx is not installed: install it, or run `cargo xtask test`")?;
        let mut command = child::command(program);
        command.arg("-c").arg(&file).arg("-p").arg(directory.path()).args(["-e", "stderr"]);
        let child = Child::spawn("nginx", directory.path(), &mut command)?;
        let mut nginx = Self { child, _directory: directory };
        eventually(START_DEADLINE, "nginx listens", async || {
            nginx.child.check_alive()?;
            tokio::net::TcpStream::connect(listen).await.context("connect")
        })
        .await
        .with_context(|| nginx.child.log_tail())?;
        Ok(nginx)
    }

    /// Fails if it ended by itself.
    pub fn check_alive(&mut self) -> Result<()> {
        self.child.check_alive()
    }
}
