package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"carillon/server/dev"
)

// dataFlag says where a development server left addresses and credentials.
type dataFlag struct {
	Data string `placeholder:"./data" help:"Data directory of a development server, for its dev.json (CARILLON_DATA)."`
}

// load returns the development file, and whether there is one.
func (f dataFlag) load(a *app) (dev.File, bool, error) {
	file, err := dev.Load(f.dir(a))
	if dev.IsMissing(err) {
		return dev.File{}, false, nil
	}
	return file, err == nil, err
}

func (f dataFlag) dir(a *app) string { return first(f.Data, a.env("CARILLON_DATA"), "./data") }

// publicFlags say how to reach the REST interface.
type publicFlags struct {
	dataFlag
	URL        string `name:"url" placeholder:"URL" help:"Public address of the gateway (CARILLON_URL)."`
	APIKeyFile string `name:"api-key-file" placeholder:"FILE" help:"File with the API key (CARILLON_API_KEY_FILE; the key itself: CARILLON_API_KEY)."`
}

// target is an address and the credential for it.
type target struct {
	url, bearer string
	patience    time.Duration // of a request; 0: requestPatience
}

func (f publicFlags) target(a *app) (target, error) {
	file, ok, err := f.load(a)
	if err != nil {
		return target{}, err
	}
	t := target{url: first(f.URL, a.env(envURL)), bearer: a.env(envAPIKey)}
	if path := first(f.APIKeyFile, a.env(envAPIKeyFile)); path != "" && (f.APIKeyFile != "" || t.bearer == "") {
		if t.bearer, err = readSecret(path); err != nil {
			return target{}, err
		}
	}
	return t.orDev(ok, file.Public, file.APIKey,
		"give --url and --api-key-file, or CARILLON_URL and CARILLON_API_KEY, or run beside the ./data of "+
			"\"carillon serve --dev\"")
}

// adminFlags say how to reach the administration.
type adminFlags struct {
	dataFlag
	AdminURL   string `name:"admin-url" placeholder:"URL" help:"Admin address of the gateway (CARILLON_ADMIN_URL)."`
	SecretFile string `name:"secret-file" placeholder:"FILE" help:"File with the gateway's secret (CARILLON_SECRET_FILE; the secret itself: CARILLON_SECRET)."`
}

func (f adminFlags) target(a *app) (target, error) {
	file, ok, err := f.load(a)
	if err != nil {
		return target{}, err
	}
	t := target{url: first(f.AdminURL, a.env(envAdminURL)), bearer: a.env("CARILLON_SECRET")}
	fromEnv := a.env("CARILLON_SECRET_FILE")
	if path := first(f.SecretFile, fromEnv); path != "" && (f.SecretFile != "" || t.bearer == "") {
		if t.bearer, err = readSecret(path); err != nil {
			return target{}, err
		}
	}
	return t.orDev(ok, file.Admin, file.Secret,
		"give --admin-url and --secret-file, or CARILLON_ADMIN_URL and CARILLON_SECRET, or run beside the ./data of "+
			"\"carillon serve --dev\"")
}

// orDev fills in what is missing from a development file. Its credential goes to its own address only.
func (t target) orDev(ok bool, url, bearer, hint string) (target, error) {
	if t.url == "" && ok {
		t.url = url
	}
	t.url = strings.TrimRight(t.url, "/")
	if t.bearer == "" && ok && t.url == strings.TrimRight(url, "/") {
		t.bearer = bearer
	}
	switch {
	case t.url == "":
		return t, usagef("no gateway is named: %s", hint)
	case t.bearer == "":
		return t, usagef("no credential for %s: %s", t.url, hint)
	}
	return t, nil
}

// readSecret reads a credential from a file; white space around it is dropped.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return s, nil
}

// first returns the first text that is not empty.
func first(ss ...string) string {
	for _, s := range ss {
		if s != "" {
			return s
		}
	}
	return ""
}
