//! The images of the suite, under their exact names, made from local parts and loaded into the nodes' engines: no
//! registry is asked.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    kit::{Result, cluster::Cluster, run},
    programs::Parts,
};

struct Image {
    names: &'static [&'static str],
    /// Parts that its build may copy, as `PART` or `PART=NAME`.
    files: &'static [&'static str],
    dockerfile: &'static str,
}

const REGISTRY: &str = "registry.k8s.io";

/// `@` stands for the repository of the suite's images, `%` for that of all of Kubernetes'.
const IMAGES: &[Image] = &[
    Image {
        names: &["fairlead.test/debian:1"],
        files: &["base.tar"],
        dockerfile: "FROM scratch\nADD base.tar /\nCMD [\"/bin/bash\"]",
    },
    Image {
        names: &["@/busybox:1.37.0-1", "@/busybox:1.36.1-1"],
        files: &["busybox"],
        dockerfile: "FROM scratch\nCOPY busybox /\n\
                     ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nCMD [\"sh\"]",
    },
    Image {
        names: &["%/pause:3.10.1", "%/pause:3.10", "%/pause:3.9", "%/pause:3.6"],
        files: &["pause"],
        dockerfile: "FROM scratch\nCOPY pause /pause\nUSER 65535:65535\nENTRYPOINT [\"/pause\"]",
    },
    Image {
        names: &["@/agnhost:2.59"],
        files: &["agnhost", "data/localhost.crt", "data/localhost.key"],
        dockerfile: "FROM fairlead.test/debian:1\nCOPY agnhost localhost.crt localhost.key /\n\
                     RUN [\"ln\", \"-s\", \"agnhost\", \"/agnhost-2\"]\nEXPOSE 80 8080 8081 9376 5000\n\
                     ENTRYPOINT [\"/agnhost\"]\nCMD [\"pause\"]",
    },
    Image { names: &["@/agnhost:2.55"], files: &[], dockerfile: "FROM @/agnhost:2.59\nLABEL version=2.55" },
    Image { names: &["@/agnhost:2.57"], files: &[], dockerfile: "FROM @/agnhost:2.59\nLABEL version=2.57" },
    Image { names: &["@/agnhost:2.6"], files: &[], dockerfile: "FROM @/agnhost:2.59\nLABEL version=2.6" },
    Image {
        names: &["@/nautilus:1.7"],
        files: &["data/nautilus.jpg", "data/nautilus.json"],
        dockerfile: "FROM @/agnhost:2.59\nCOPY nautilus.jpg nautilus.jpg\nCOPY nautilus.json data.json\n\
                     CMD [\"test-webserver\"]",
    },
    Image {
        names: &["@/kitten:1.7"],
        files: &["data/kitten.jpg", "data/kitten.json"],
        dockerfile: "FROM @/agnhost:2.59\nCOPY kitten.jpg kitten.jpg\nCOPY kitten.json data.json\n\
                     CMD [\"test-webserver\"]",
    },
    Image {
        names: &["@/nginx:1.14-4"],
        files: &[],
        dockerfile: "FROM fairlead.test/debian:1\nLABEL version=1.14-4\nEXPOSE 80\nSTOPSIGNAL SIGQUIT\nCMD [\"nginx\"]",
    },
    Image {
        names: &["@/nginx:1.15-4"],
        files: &[],
        dockerfile: "FROM fairlead.test/debian:1\nLABEL version=1.15-4\nEXPOSE 80\nSTOPSIGNAL SIGQUIT\nCMD [\"nginx\"]",
    },
    Image {
        names: &["@/jessie-dnsutils:1.7"],
        files: &[],
        dockerfile: "FROM fairlead.test/debian:1\nLABEL name=jessie-dnsutils",
    },
    Image { names: &["@/nonroot:1.4"], files: &[], dockerfile: "FROM fairlead.test/debian:1\nUSER 1234" },
    Image {
        names: &["@/nonewprivs:1.3"],
        files: &["nnp"],
        dockerfile: "FROM fairlead.test/debian:1\nCOPY nnp /usr/local/bin/nnp\n\
                     RUN [\"chmod\", \"6755\", \"/usr/local/bin/nnp\"]\nCMD [\"nnp\"]",
    },
    Image {
        names: &["@/perl:5.26"],
        files: &[],
        dockerfile: "FROM fairlead.test/debian:1\nLABEL name=perl\nCMD [\"perl\"]",
    },
    Image {
        names: &["@/resource-consumer:1.13"],
        files: &["consumer", "consume-cpu"],
        dockerfile: "FROM fairlead.test/debian:1\nCOPY consumer consume-cpu /\nEXPOSE 8080\nENTRYPOINT [\"/consumer\"]",
    },
    Image {
        names: &["@/sample-apiserver:1.29.2"],
        files: &["sample-apiserver"],
        dockerfile: "FROM fairlead.test/debian:1\nCOPY sample-apiserver /sample-apiserver\n\
                     ENTRYPOINT [\"/sample-apiserver\"]",
    },
    Image {
        names: &["%/etcd:3.6.6-0"],
        files: &["etcd"],
        dockerfile: "FROM fairlead.test/debian:1\nCOPY etcd /usr/local/bin/etcd\nCMD [\"etcd\"]",
    },
];

/// Builds every image in the first node's engine and copies them into the others'.
pub fn load(cluster: &Cluster, parts: &Parts) -> Result {
    let first = cluster.nodes.first().ok_or("the cluster has no nodes")?;
    let mut names = Vec::new();
    for image in IMAGES {
        println!("image {}", full(image.names[0]));
        build(&first.docker.url(), image, parts)?;
        names.extend(image.names.iter().map(|name| full(name)));
    }
    for node in cluster.nodes.iter().skip(1) {
        let mut save = Command::new("docker");
        save.args(["--host", &first.docker.url(), "save"]).args(&names).stdout(Stdio::piped());
        let mut saving = save.spawn()?;
        let archive = saving.stdout.take().ok_or("no standard output")?;
        run(Command::new("docker").args(["--host", &node.docker.url(), "load", "--quiet"]).stdin(archive))?;
        if !saving.wait()?.success() {
            return Err("docker save failed".into());
        }
    }
    Ok(())
}

fn build(engine: &str, image: &Image, parts: &Parts) -> Result {
    let context = tempfile::tempdir_in(&parts.dir)?;
    std::fs::write(context.path().join("Dockerfile"), full(image.dockerfile))?;
    for file in image.files {
        let to = Path::new(file).file_name().ok_or("a part without a name")?;
        run(Command::new("cp").arg("-a").arg(parts.path(file)).arg(context.path().join(to)))?;
    }
    let mut docker = Command::new("docker");
    docker.args(["--host", engine, "build", "--quiet", "--network", "none"]).env("DOCKER_BUILDKIT", "0");
    for name in image.names {
        docker.args(["--tag", &full(name)]);
    }
    run(docker.arg(context.path())).map(|_| ())
}

fn full(text: &str) -> String {
    text.replace("@/", &format!("{REGISTRY}/e2e-test-images/")).replace("%/", &format!("{REGISTRY}/"))
}
