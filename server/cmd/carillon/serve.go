package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"carillon/server/admission"
	"carillon/server/certificate"
	"carillon/server/config"
	"carillon/server/forwarded"
	"carillon/server/gateway"
	"carillon/server/heap"
	"carillon/server/push"
	"carillon/server/redisdb"
	"carillon/server/room"
	"carillon/server/transport"
	"carillon/server/transport/ws"
)

type serveCmd struct{ configFlags }

// Help is shown under --help.
func (serveCmd) Help() string {
	return `Each flag is a key of the configuration. A flag wins over its variable, that over the file, the file over the
default. The secret of the administration is given as CARILLON_SECRET or with --secret-file.

Ends gracefully at the first SIGINT or SIGTERM and at once at the second. With TLS, SIGHUP reads the certificates again;
new files are found without it, within ten seconds.

Example:

    carillon serve --dev`
}

// Run executes the command.
func (c *serveCmd) Run(ctx context.Context, a *app) (err error) {
	l, err := c.load(a)
	if err != nil {
		return err
	}
	cfg := gatewayConfig(l.Config, a)
	if cfg.Cluster, err = clusterOf(&l.Config); err != nil {
		return err
	}
	mem := heap.Apply(heap.Config{LimitBytes: l.Memory.LimitBytes, GCPercent: l.Memory.GCPercent})
	cfg.Log.Info("memory", "limit_bytes", mem.LimitBytes, "limit_from", mem.LimitFrom,
		"gc_percent", mem.GCPercent, "gc_percent_from", mem.PercentFrom)
	cfg.Admission.HeapBytes = mem.LimitBytes / 100 * int64(l.Limits.SessionsHeapPercent)
	g, err := gateway.New(ctx, cfg)
	if err != nil && errors.Is(err, ctx.Err()) { // it was told to end while it waited for Redis
		cfg.Log.Info("stopping")
		return nil
	}
	if err != nil {
		return err
	}
	defer func() {
		if closing := g.Close(); err == nil {
			err = closing
		}
	}()
	if l.Dev {
		text, err := g.DevText(os.Args[0])
		if err != nil {
			return err
		}
		a.print("%s", text)
		pid := filepath.Join(l.Data, pidFile)
		if err := os.WriteFile(pid, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
			return err
		}
		defer os.Remove(pid)
	}
	if len(cfg.Certificates) > 0 {
		defer reloadOnHangup(g)()
	}
	cfg.Log.Info("serving", "public", g.PublicAddr().String(), "admin", g.AdminAddr().String(), "tcp", cmp.Or(g.TCPURL(), "off"),
		"nodes", cmp.Or(g.NodeAddr(), "none"), "nodes_listen", cmp.Or(g.NodeListenAddr(), "none"), "data", cmp.Or(dataOf(cfg), "redis"), "engine", string(g.Engine()), "version", cfg.Version)
	return g.Run(ctx)
}

// dataOf returns the directory of the embedded store, empty if there is none.
func dataOf(cfg gateway.Config) string {
	if cfg.Cluster != nil {
		return ""
	}
	return cfg.Data
}

// reloadOnHangup reads the certificates again at each SIGHUP, until the returned function is called. Without certificates a
// SIGHUP ends the process, as it does when a terminal closes.
func reloadOnHangup(g *gateway.Gateway) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	done := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-hangup:
				_ = g.ReloadCertificates() // the log has it
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(hangup)
		close(done)
		running.Wait()
	}
}

// pidFile is where a development server leaves its process id, for whoever wants to see it survive kill -9.
const pidFile = "dev.pid"

// gatewayConfig hands the configuration to the gateway as plain values.
func gatewayConfig(c config.Config, a *app) gateway.Config {
	g := gateway.Config{
		Data: c.Data, Dev: c.Dev, Secret: c.Secret.Reveal(),
		PublicListen: c.Public.Listen, AdminListen: c.Admin.Listen, TCPListen: c.TCP.Listen,
		PublicHosts: c.Public.Hosts, AdminHosts: c.Admin.Hosts, Origins: c.Public.Origins,
		Certificates: certificates(c.TLS), Proxies: forwarded.Config{Trusted: c.Proxy.Trusted, Source: forwarded.Source(c.Proxy.Header)},
		OutboundAllow: c.Outbound.Allow,
		Notice:        c.NoticeGiven(), ShutdownTimeout: c.Shutdown.Timeout, CacheBytes: c.Store.CacheBytes, Version: version(),
		Log: newLog(c.Log, a), Engine: engine(c.Transport.Engine), Admission: admissionOf(c.Limits), Door: doorOf(c.Limits),
		Room: room.Config{
			ConnectTimeout: c.Limits.ConnectTimeout, FrameBytes: c.Limits.FrameBytes,
			FramesPerSecond: c.Limits.FramesPerSecond, QueueMessages: c.Limits.QueueMessages,
			QueueBytes: c.Limits.QueueBytes, WriteDeadline: c.Limits.WriteDeadline,
			Heartbeat: c.Heartbeat.Interval, Heartbeats: heartbeats(c.Heartbeat.Intervals),
			Grace: c.Heartbeat.Grace, Linger: c.Heartbeat.Linger, Goodbye: room.Goodbye{Spread: c.Drain.Spread},
			CutOffAfter: c.Node.CutOff, Pace: c.Limits.Broadcasts,
		},
		DrainAddress: c.Drain.Address,
		Roles:        rolesOf(c.Roles),
	}
	g.Center.SmallAudience = orNone(c.Limits.SmallAudience)
	return g
}

func rolesOf(roles []config.Role) []gateway.Role {
	out := make([]gateway.Role, len(roles))
	for i, r := range roles {
		out[i] = gateway.Role(r)
	}
	return out
}

// clusterOf returns what makes the server one of several, nil if it is alone.
func clusterOf(c *config.Config) (*gateway.Cluster, error) {
	if c.Store.Kind != config.StoreRedis {
		return nil, nil
	}
	r := &c.Redis
	out := &gateway.Cluster{
		ID: push.RoomID(cmp.Or(c.Node.ID, c.Node.Address())), Listen: c.Node.Listen, Advertise: c.Node.Advertise, Secret: c.Node.Secret.Reveal(),
		Redis: redisdb.Config{
			Mode: redisdb.Mode(r.Mode), Addrs: r.Addresses, Master: r.Master, Database: r.Database,
			Username: r.Username, Password: r.Password.Reveal(),
			SentinelUsername: r.SentinelUsername, SentinelPassword: r.SentinelPassword.Reveal(),
			Durability: durabilities[r.Durability], Replicas: r.Replicas, Asserted: r.Asserted,
		},
	}
	if !r.TLS {
		return out, nil
	}
	out.Redis.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if r.TLSCA == "" {
		return out, nil
	}
	pem, err := os.ReadFile(r.TLSCA)
	if err != nil {
		return nil, fmt.Errorf("redis.tls_ca: %w", err)
	}
	out.Redis.TLS.RootCAs = x509.NewCertPool()
	if !out.Redis.TLS.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("redis.tls_ca: %s holds no certificate in PEM", r.TLSCA)
	}
	return out, nil
}

var durabilities = map[config.Durability]push.Durability{
	config.DurabilityProcess: push.DurabilityProcess, config.DurabilityDisk: push.DurabilityDisk,
	config.DurabilityReplicated: push.DurabilityReplicated,
}

// addressBurst is how many seconds' worth of connections an address may make at once: behind one live many, who all come
// back together when its network does.
const addressBurst = 10

// orNone returns a limit as it stands where zero is the default and what is below is none.
func orNone(n int) int {
	if n == 0 {
		return -1
	}
	return n
}

func admissionOf(c config.Limits) admission.Config {
	a := admission.Config{
		Rate: c.Connects, Sessions: c.Sessions, PerAddress: c.AddressSessions,
		AddressRate: c.AddressConnects, AddressBurst: addressBurst * c.AddressConnects,
		AddressRequests: c.AddressRequests, Refusals: c.Refusals, AddressRefusals: c.AddressRefusals,
	}
	if a.Rate > 0 {
		a.Burst = c.ConnectBurst
	}
	return a
}

func doorOf(c config.Limits) admission.DoorConfig {
	d := admission.DoorConfig{Connections: c.Connections, PerAddress: c.AddressConnections}
	if d.Connections == config.ConnectionsAuto {
		d.Connections = admission.MostConnections()
	}
	return d
}

func heartbeats(is []config.Interval) room.Heartbeats {
	h := make(room.Heartbeats, len(is))
	for _, i := range is {
		h[room.HeartbeatOf{Transport: transport.Kind(i.Transport), Platform: i.Platform}] = i.Every
	}
	return h
}

// certificates puts files together that stand at the same place; the configuration has seen that there are as many of both.
func certificates(c config.TLS) []certificate.Pair {
	pairs := make([]certificate.Pair, len(c.Cert))
	for i := range pairs {
		pairs[i] = certificate.Pair{Cert: c.Cert[i], Key: c.Key[i]}
	}
	return pairs
}

// engine is the transports' word for an engine; theirs for auto is none.
func engine(e config.Engine) ws.Engine {
	if e == config.EngineAuto {
		return ""
	}
	return ws.Engine(e)
}

func newLog(c config.Log, a *app) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == config.LogJSON {
		return slog.New(slog.NewJSONHandler(a.stderr, options))
	}
	return slog.New(slog.NewTextHandler(a.stderr, options))
}
