package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"carillon/server/push"
)

// Interval is a heartbeat interval for some clients.
type Interval struct {
	Transport string // ws, sse, poll or tcp; empty: any but poll
	Platform  string // as tokens name it; empty: any
	Every     time.Duration
}

// transports are the names that an interval may be for.
var transports = []string{"ws", "sse", "poll", "tcp"}

// parseIntervals reads a list like ws=30s,tcp/android=4m,*/ios=2m.
func parseIntervals(s string) ([]Interval, error) {
	var out []Interval
	for _, part := range splitList(s) {
		who, every, ok := strings.Cut(part, "=")
		kind, platform, named := strings.Cut(strings.TrimSpace(who), "/")
		d, err := time.ParseDuration(strings.TrimSpace(every))
		if !ok || err != nil || kind == "" || named && platform == "" || kind == "*" && !named {
			return nil, errors.New("write transport=interval or transport/platform=interval, as in tcp=2m,tcp/android=4m,*/ios=1m")
		}
		i := Interval{Transport: kind, Platform: platform, Every: d}
		if kind == "*" {
			i.Transport = ""
		} else if !slices.Contains(transports, kind) {
			return nil, fmt.Errorf("a transport is one of %s, or *", strings.Join(transports, ", "))
		}
		if _, ok := push.ParsePlatform(platform); named && !ok {
			return nil, errors.New("a platform is one of web, android, ios, desktop, tablet, tv, other")
		}
		if d < time.Second || d > i.most() {
			return nil, errors.New("it lies between 1s and 1h; for poll, where it is how long one is held, between 1s and 1m")
		}
		if slices.ContainsFunc(out, func(o Interval) bool { return o.Transport == i.Transport && o.Platform == i.Platform }) {
			return nil, errors.New("an interval is named twice")
		}
		out = append(out, i)
	}
	return out, nil
}

func (i Interval) most() time.Duration {
	if i.Transport == "poll" {
		return time.Minute
	}
	return time.Hour
}

// String returns the interval as the configuration writes it.
func (i Interval) String() string {
	who := i.Transport
	if who == "" {
		who = "*"
	}
	if i.Platform != "" {
		who += "/" + i.Platform
	}
	return who + "=" + i.Every.String()
}

// parseOrigin checks the address of another node.
func parseOrigin(s string) error {
	scheme, host, ok := strings.Cut(s, "://")
	if !ok || scheme != "https" && scheme != "http" || host == "" || strings.ContainsAny(host, "/?#@ \t\\") {
		return errors.New("write https://host or https://host:port, without a path")
	}
	return nil
}
