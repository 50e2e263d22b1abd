package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"carillon/server/auth"
	"carillon/server/client"
	"carillon/server/push"
)

type listenCmd struct {
	dataFlag
	URL       string `name:"url" placeholder:"URL" help:"Public address of the gateway (CARILLON_URL); for tcp that of its TCP listener, tcp://HOST:PORT, or tcps:// under TLS."`
	Transport string `default:"ws" enum:"ws,sse,poll,tcp" help:"How to connect: ${enum}."`
	User      string `short:"u" help:"With a development server: the user to be."`
	Device    string `short:"d" help:"With a development server: the device to be."`
	Platform  string `default:"desktop" enum:"other,web,android,ios,desktop,tablet,tv" help:"With a development server: what the device is: ${enum}."`
	TokenFile string `placeholder:"FILE" help:"File with a device token (CARILLON_TOKEN_FILE; the token itself: CARILLON_TOKEN). It is read again when the server wants another."`
	State     string `placeholder:"FILE" help:"File that keeps the cursor and the last message ids; with a token of your own it is needed."`
	Count     int    `placeholder:"N" help:"End after that many messages."`
	JSON      bool   `name:"json" help:"Print each message, recall and gap as JSON, one a line."`
}

// Help is shown under --help.
func (listenCmd) Help() string {
	return `Prints each message once, acknowledges it after that, and goes on where it ended when it is started again.
It comes back by itself when the connection breaks, unless the server tells it to stay away. Where it ended holds for every
transport: ws is a WebSocket, sse an event stream, poll asks again and again, tcp is raw TCP with binary frames.

Messages go to standard output, everything else to standard error.

Example:

    carillon listen --transport ws --user alice --device phone`
}

// Run executes the command.
func (c *listenCmd) Run(ctx context.Context, a *app) error {
	if c.Count < 0 {
		return usagef("--count is above zero")
	}
	d, err := c.device(a)
	if err != nil {
		return err
	}
	if c.Transport != "tcp" {
		d.url += "/connect"
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &printer{a: a, json: c.JSON, left: c.Count, enough: cancel}
	cl, err := client.New(client.Config{
		URLs: []string{d.url}, Dialer: dialers[c.Transport], Tokens: d.tokens, Storage: &client.File{Path: d.state},
		Name: "carillon-cli", Callbacks: p.callbacks(),
	})
	if err != nil {
		return err
	}
	return cl.Run(ctx)
}

// dialers are the transports by their names.
var dialers = map[string]client.Dialer{"ws": &client.WebSocket{}, "sse": &client.SSE{}, "poll": &client.LongPoll{}, "tcp": &client.TCP{}}

// device is what listen is: where to, as whom, and where it remembers.
type device struct {
	url    string
	tokens client.TokenSource
	state  string
}

func (c *listenCmd) device(a *app) (device, error) {
	d := device{url: strings.TrimRight(first(c.URL, a.env(envURL)), "/"), state: c.State}
	if isTCP := strings.HasPrefix(d.url, "tcp"); d.url != "" && isTCP != (c.Transport == "tcp") {
		return d, usagef("--transport %s does not go to %s: tcp has a listener of its own, tcp://HOST:PORT or tcps://HOST:PORT", c.Transport, d.url)
	}
	file := first(c.TokenFile, a.env(envTokenFile))
	token := a.env(envToken)
	if file == "" && token == "" || c.User != "" || c.Device != "" {
		return c.devDevice(a, d)
	}
	if d.url == "" || d.state == "" {
		return d, usagef("a token of your own needs --url and --state")
	}
	d.tokens = client.StaticToken(token)
	if file != "" {
		d.tokens = fileTokens(file)
	}
	return d, nil
}

// devDevice is a device of a development server: it makes its tokens itself.
func (c *listenCmd) devDevice(a *app, d device) (device, error) {
	if c.User == "" || c.Device == "" {
		return d, usagef("give --user and --device with a development server, or --token-file")
	}
	file, ok, err := c.load(a)
	if err != nil {
		return d, err
	}
	if !ok {
		return d, usagef("%s is not there: start \"carillon serve --dev\", name its directory with --data, or give "+
			"--token-file", filepath.Join(c.dir(a), "dev.json"))
	}
	standard := file.Public
	if c.Transport == "tcp" {
		standard = file.TCP
	}
	if d.url = first(d.url, standard); d.url == "" {
		return d, usagef("the development server has no listener for %s; name one with --url", c.Transport)
	}
	d.tokens = c.devTokens(a)
	if d.state == "" {
		name := url.PathEscape(c.User) + "," + url.PathEscape(c.Device) + ".json"
		d.state = filepath.Join(c.dir(a), "listen", name)
		err = os.MkdirAll(filepath.Dir(d.state), 0o700)
	}
	return d, err
}

// devTokenLife is how long the tokens live that listen makes for itself.
const devTokenLife = time.Hour

// devTokens makes a token for each connect, with the key that the development server has then.
func (c *listenCmd) devTokens(a *app) client.TokenSource {
	platform, _ := push.ParsePlatform(c.Platform)
	return func(context.Context, bool) (string, error) {
		file, ok, err := c.load(a)
		if err != nil {
			return "", err
		}
		if !ok {
			return "", errors.New("the development server's dev.json is gone")
		}
		now := time.Now()
		return auth.Mint(devKey(file), auth.Claims{
			Product: push.ProductID(file.Product), User: push.UserID(c.User), Device: push.DeviceID(c.Device),
			Platform: platform, Issued: now, Expires: now.Add(devTokenLife),
		})
	}
}

// fileTokens reads the token from a file, and ends the client if the server wants another and the file has the same.
func fileTokens(path string) client.TokenSource {
	last := ""
	return func(_ context.Context, renew bool) (string, error) {
		token, err := readSecret(path)
		if err != nil {
			return "", err
		}
		if renew && token == last {
			return "", fmt.Errorf("%w: write a new one into %s", client.ErrNoOtherToken, path)
		}
		last = token
		return token, nil
	}
}
