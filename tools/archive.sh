# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# For tools/get-*, which have $dest and die(): packages of any of Debian's suites, without touching the host. A private
# apt configuration below $dest/apt, made from the mirror that this machine uses.

# The URIs of this machine's own sources, the main archive first. Which of them carries a suite shows when it is asked.
mirrors() {
	local codename
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	env -u APT_CONFIG apt-get indextargets --no-release-info --format '$(RELEASE) $(REPO_URI)' \
		'Created-By: Packages' |
		awk -v c="$codename" '$2 !~ /security/ { print ($1 == c ? 0 : 1), $2 }' | sort -s -k1,1 |
		awk '!seen[$2]++ { print $2 }'
}

configure_apt() { # URI SUITE...
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	mkdir -p "$dest"/apt/{lists/partial,cache/archives/partial}
	: >"$dest/apt/status"
	printf "deb [arch=amd64 signed-by=$keyring] $1 %s main\n" "${@:2}" >"$dest/apt/sources.list"
	cat >"$dest/apt/apt.conf" <<-END
		Dir::Etc::sourcelist "$dest/apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State::lists "$dest/apt/lists";
		Dir::State::status "$dest/apt/status";
		Dir::Cache "$dest/apt/cache";
		APT::Architecture "amd64";
		APT::Architectures { "amd64"; };
		APT::Sandbox::User "";
		Acquire::Languages "none";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
		Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
	END
	export APT_CONFIG=$dest/apt/apt.conf
}

suites_update() { # SUITE...
	local uri
	while read -r uri; do
		configure_apt "$uri" "$@"
		apt-get update -qq -o APT::Update::Error-Mode=any >"$dest/apt/log" 2>&1 && return
	done < <(mirrors)
	die "none of this machine's apt sources has Debian's $*: $(tail -n1 "$dest/apt/log" 2>/dev/null)"
}
