package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const secretText = "zB7-this-is-a-secret-of-good-length"

func writeFile(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "carillon.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoad_FlagWinsOverEnvironmentOverFileOverDefault(t *testing.T) {
	path := writeFile(t, `
dev: true
public:
  origins: ["*.example.com", "https://example.org"]
tls: {cert: [a.pem, b.pem], key: "a.key,b.key"}
proxy: {trusted: [10.0.0.0/8, "2001:db8::1"]}
limits:
  queue_messages: 10
  frame_bytes: 8192
  write_deadline: 3s
tcp: {listen: off}
log:
`)
	l, err := Load(Sources{
		File: path,
		Env: []string{
			"HOME=/somewhere", "CARILLON_NOTHING=", "CARILLON_LIMITS_FRAME_BYTES=5000", "CARILLON_LIMITS_WRITE_DEADLINE=4s",
			"CARILLON_SECRET=" + secretText, "CARILLON_URL=somebody else's",
		},
		Known: []string{"CARILLON_URL"},
		Flags: map[string]string{"limits.write_deadline": "5s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Dev = true
	want.Public.Origins = []string{"*.example.com", "https://example.org"}
	want.TLS = TLS{Cert: []string{"a.pem", "b.pem"}, Key: []string{"a.key", "b.key"}}
	want.Proxy.Trusted = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::1/128")}
	want.TCP.Listen = ""
	want.Limits.QueueMessages = 10
	want.Limits.FrameBytes = 5000
	want.Limits.WriteDeadline = 5 * time.Second
	want.Secret = NewSecret(secretText)
	if got := fmt.Sprintf("%+v", l.Config); got != fmt.Sprintf("%+v", want) || l.Secret != want.Secret {
		t.Errorf("got  %s\nwant %+v", got, want)
	}
	origins := map[string]string{
		"data": "default", "dev": path, "limits.frame_bytes": "CARILLON_LIMITS_FRAME_BYTES",
		"limits.write_deadline": "--limits-write-deadline", "secret": "CARILLON_SECRET",
	}
	for _, s := range l.Settings() {
		if want, ok := origins[s.Key]; ok && s.Origin != want {
			t.Errorf("%s came from %q, want %q", s.Key, s.Origin, want)
		}
		if strings.Contains(s.Value, secretText) {
			t.Errorf("%s shows the secret", s.Key)
		}
	}
}

func TestLoad_SaysWhatIsWrongAndWhatToDo(t *testing.T) {
	cases := []struct {
		name string
		file string
		env  string
		flag string // key=value
		want string // part of the error
	}{
		{"unknown key", "limits:\n  frame_byte: 1\n", "", "", `no key "limits.frame_byte"; did you mean limits.frame_bytes?`},
		{"unknown section", "metrics: {on: true}\n", "", "", `no key "metrics.on"`},
		{"unknown variable", "", "CARILLON_PUBLIC_LISTN=:1", "", "CARILLON_PUBLIC_LISTN; did you mean CARILLON_PUBLIC_LISTEN?"},
		{"bare number for a time", "limits: {connect_timeout: 5}\n", "", "", "as in 500ms, 10s or 2m"},
		{"time out of range", "", "", "heartbeat.interval=1ms", "between 1s and 1h0m0s"},
		{"not a number", "", "CARILLON_LIMITS_QUEUE_BYTES=much", "", "limits.queue_bytes (CARILLON_LIMITS_QUEUE_BYTES): write a whole"},
		{"number out of range", "", "", "limits.frame_bytes=10", "between 4096 and 1048576"},
		{"memory that is no number", "", "", "memory.limit_bytes=half", "write auto, or a whole number"},
		{"memory that is too little", "", "", "memory.limit_bytes=1000", "it is auto, 0, or at least"},
		{"not an address", "", "", "public.listen=8080", "write host:port"},
		{"port out of range", "", "", "public.listen=:65536", "write host:port"},
		{"same addresses", "", "", "admin.listen=127.0.0.1:8080", "the same address"},
		{"raw TCP where another listens", "", "", "tcp.listen=127.0.0.1:8080", "another listener"},
		{"raw TCP on no address", "", "", "tcp.listen=on", "or off"},
		{"key without certificate", "", "", "tls.key=a.key", "0 certificates and 1 keys"},
		{"not a network", "", "", "proxy.trusted=10.0.0.0/33", "write networks and addresses"},
		{"not a header", "", "", "proxy.header=x-real-ip", "write x-forwarded-for, forwarded or proxy-v2"},
		{"PROXY protocol of nobody", "", "", "proxy.header=proxy-v2", "name them with proxy.trusted"},
		{"not a level", "log: {level: loud}\n", "", "", "write debug, info, warn or error"},
		{"not a format", "log: {format: xml}\n", "", "", "write text or json"},
		{"not a bool", "", "CARILLON_DEV=maybe", "", "write true or false"},
		{"empty directory", "", "CARILLON_DATA=", "", "data (CARILLON_DATA): it may not be empty"},
		{"no value", "limits: {queue_bytes: }\n", "", "", "leave the key out"},
		{"list for a value", "data: [a, b]\n", "", "", "not a list"},
		{"section for a value", "data: {}\n", "", "", "not a section"},
		{"list of other things", "public: {origins: [{a: b}]}\n", "", "", "a list of texts"},
		{"number for the secret", "secret: 12345678901234567890\n", "", "", "write it in quotes"},
		{"not YAML", "a: [\n", "", "", "configuration file"},
		{"not keys", "zB7-whole-file\n", "", "", "not a set of keys"},
		{"secret file missing", "", "", "secret_file=/nowhere/at/all", "secret_file (--secret-file)"},
		{"secret twice", "secret: " + secretText + "\n", "", "secret_file=x", "give one of them"},
	}
	for _, c := range cases {
		s := Sources{Env: []string{"CARILLON_DEV=true"}, Flags: map[string]string{}}
		if c.file != "" {
			s.File = writeFile(t, c.file)
		}
		if c.env != "" {
			s.Env = append(s.Env, c.env)
		}
		if k, v, ok := strings.Cut(c.flag, "="); ok {
			s.Flags[k] = v
		}
		_, err := Load(s)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "zB7") {
			t.Errorf("%s: the error shows a value: %v", c.name, err)
		}
	}
}

func TestLoad_TellsEverythingThatIsWrongAtOnce(t *testing.T) {
	_, err := Load(Sources{
		File:  writeFile(t, "nonsense: 1\nlog: {level: loud}\n"),
		Env:   []string{"CARILLON_NONSENSE=1"},
		Flags: map[string]string{"public.listen": "x"},
	})
	if err == nil {
		t.Fatal("loaded")
	}
	if got, want := strings.Count(err.Error(), "\n")+1, 4; got != want {
		t.Errorf("%d lines, want %d:\n%v", got, want, err)
	}
}

func TestLoad_NeedsASecretUnlessInDevelopment(t *testing.T) {
	if _, err := Load(Sources{}); err == nil || !strings.Contains(err.Error(), "openssl rand -base64 32") {
		t.Errorf("got %v, want an error that says how to make a secret", err)
	}
	if _, err := Load(Sources{Flags: map[string]string{"dev": "true"}}); err != nil {
		t.Errorf("in development: %v", err)
	}
	l, err := Load(Sources{
		Flags:    map[string]string{"secret_file": "the-file"},
		ReadFile: func(path string) ([]byte, error) { return []byte("\n" + secretText + "\n"), nil },
	})
	if err != nil || l.Secret.Reveal() != secretText {
		t.Errorf("from a file: %v", err)
	}
}

func TestLoad_MissingFileIsAnError(t *testing.T) {
	if _, err := Load(Sources{File: filepath.Join(t.TempDir(), "none.yaml")}); err == nil {
		t.Error("loaded a file that is not there")
	}
}

func TestSecret_NeverPrints(t *testing.T) {
	s := NewSecret(secretText)
	type holder struct{ Secret Secret }
	var out []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%10s"} {
		out = append(out, fmt.Sprintf(verb, s), fmt.Sprintf(verb, holder{s}), fmt.Sprintf(verb, &holder{s}))
	}
	b, err := json.Marshal(holder{s})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "secret", s, "holder", holder{s})
	slog.New(slog.NewTextHandler(&log, nil)).Info("m", "secret", s, "holder", holder{s})
	for _, o := range append(out, string(b), log.String()) {
		if strings.Contains(o, secretText) || strings.Contains(o, fmt.Sprintf("%x", secretText)) {
			t.Errorf("printed as %s", o)
		}
	}
	if s.Reveal() != secretText || s.String() != "[hidden]" || NewSecret("").String() != "" {
		t.Error("Reveal, String or an empty secret's String is wrong")
	}
}

func TestKeys_NamesAreUniqueAndValuesCanBeReadAgain(t *testing.T) {
	var names []string
	for i, k := range Keys() {
		names = append(names, k.Name, k.Env, "--"+k.Flag)
		if (k.Flag == "") != table[i].secret {
			t.Errorf("%s: only secrets have no flag", k.Name)
		}
		if k.Doc == "" {
			t.Errorf("%s has no description", k.Name)
		}
		c := Default()
		before := table[i].get(&c)
		if k.Default == "" || table[i].secret {
			continue
		}
		if err := table[i].set(&c, before); err != nil || table[i].get(&c) != before {
			t.Errorf("%s: its value %q cannot be read again: %v", k.Name, before, err)
		}
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] && names[i] != "--" {
			t.Errorf("the name %s stands twice", names[i])
		}
	}
}

func TestListenError_NamesTheFlag(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = net.Listen("tcp", l.Addr().String())
	err = ListenError("public.listen", l.Addr().String(), err)
	for _, want := range []string{"another program listens", "--public-listen", "CARILLON_PUBLIC_LISTEN"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %q, want %q in it", err, want)
		}
	}
	_, err = net.Listen("tcp", "203.0.113.1:1")
	if err == nil {
		t.Fatal("listened on an address of somebody else")
	}
	if err := ListenError("admin.listen", "203.0.113.1:1", err); !strings.Contains(err.Error(), "--admin-listen") {
		t.Errorf("got %q, want the flag in it", err)
	}
}

func TestLoad_MemoryLimitIsAutoOrNoneOrANumber(t *testing.T) {
	for value, want := range map[string]int64{"": MemoryAuto, "auto": MemoryAuto, "0": 0, "1073741824": 1 << 30} {
		s := Sources{Env: []string{"CARILLON_DEV=true"}}
		if value != "" {
			s.Env = append(s.Env, "CARILLON_MEMORY_LIMIT_BYTES="+value)
		}
		l, err := Load(s)
		if err != nil {
			t.Fatal(err)
		}
		if l.Memory.LimitBytes != want {
			t.Errorf("%q is %d, want %d", value, l.Memory.LimitBytes, want)
		}
		for _, set := range l.Settings() {
			if shown := set.Value; set.Key == "memory.limit_bytes" && shown != value && (value != "" || shown != "auto") {
				t.Errorf("%q is shown as %q", value, shown)
			}
		}
	}
}

func TestLoad_ConnectionsAreAutoOrNoneOrANumber(t *testing.T) {
	load := func(value string) (Config, error) {
		s := Sources{Env: []string{"CARILLON_DEV=true"}}
		if value != "" {
			s.Env = append(s.Env, "CARILLON_LIMITS_CONNECTIONS="+value)
		}
		l, err := Load(s)
		if err != nil {
			return Config{}, err
		}
		return l.Config, nil
	}
	for value, want := range map[string]int{"": ConnectionsAuto, "auto": ConnectionsAuto, "0": 0, "500": 500} {
		if c, err := load(value); err != nil || c.Limits.Connections != want {
			t.Errorf("%q is %d, %v, want %d", value, c.Limits.Connections, err, want)
		}
	}
	for _, value := range []string{"-1", "many"} {
		if _, err := load(value); err == nil || !strings.Contains(err.Error(), "auto") {
			t.Errorf("%q was refused with %v, want what may be written", value, err)
		}
	}
}
