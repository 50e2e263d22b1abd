package main

import (
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"carillon/server/config"
)

// shellWords splits an example as a shell would, as far as examples go: blanks, single and double quotes.
func shellWords(s string) []string {
	var words []string
	for _, m := range regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`).FindAllString(s, -1) {
		words = append(words, strings.Trim(m, `'"`))
	}
	return words
}

func TestHelp_EveryCommandHasAnExampleThatParses(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	parser, err := newParser(a, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile(`(?m)^    carillon (.*)$`)
	leaves := 0
	err = kong.Visit(parser.Model.Node, func(v kong.Visitable, next kong.Next) error {
		n, ok := v.(*kong.Node)
		if !ok || n.Type != kong.CommandNode || len(n.Children) > 0 {
			return next(nil)
		}
		leaves++
		found := example.FindAllStringSubmatch(n.Detail, -1)
		if len(found) == 0 {
			t.Errorf("%s: the help has no example", n.FullPath())
		}
		for _, m := range found {
			fresh, err := newParser(a, func(int) {})
			if err != nil {
				t.Fatal(err)
			}
			ctx, err := fresh.Parse(shellWords(m[1]))
			if err != nil {
				t.Errorf("%s: its example does not parse: %v", n.FullPath(), err)
			} else if got := "carillon " + strings.Split(ctx.Command(), " <")[0]; got != n.FullPath() {
				t.Errorf("%s: its example is of %s", n.FullPath(), got)
			}
		}
		return next(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if leaves < 48 {
		t.Errorf("visited %d commands, want all 48", leaves)
	}
}

func TestRun_ExitCodeAndHint(t *testing.T) {
	cases := []struct {
		name string
		args []string
		code int
		want string // in what is written to either side
	}{
		{"nothing shows the help", nil, exitOK, "Usage: carillon <command>"},
		{"help", []string{"send", "--help"}, exitOK, "Usage: carillon send"},
		{"version", []string{"version"}, exitOK, "wire schema 1"},
		{"unknown command", []string{"sned"}, exitUsage, `did you mean "send"?`},
		{"unknown command below another", []string{"key", "creat"}, exitUsage, `Run "carillon key --help"`},
		{"unknown flag", []string{"serve", "--limits-frame-byte=1"}, exitUsage, `did you mean "--limits-frame-bytes"`},
		{"a transport that is not there", []string{"listen", "--transport", "carrier-pigeon"}, exitUsage, "ws"},
		{"nobody to send to", []string{"send", "--body", "1"}, exitUsage, "whom is it for?"},
		{"nothing to send", []string{"send", "--user", "alice"}, exitUsage, "what is the message?"},
		{"two kinds of audience", []string{"send", "--user", "alice", "--everyone", "--body", "1"}, exitUsage, "together"},
		{"a body that is no JSON", []string{"send", "--user", "alice", "--body", "hello"}, exitUsage, "in quotes"},
		{"no gateway", []string{"send", "--user", "alice", "--body", "1"}, exitUsage, "CARILLON_URL"},
		{"configuration that is wrong", []string{"config", "check", "--limits-frame-bytes=1"}, exitFailed, "4096"},
		{"a certificate that is not there", []string{"config", "check", "--dev", "--tls-cert=/no/where", "--tls-key=/no/where"}, exitFailed,
			"the certificate /no/where is not there"},
		{"an origin that is open at its end", []string{"config", "check", "--dev", "--public-origins=example.*"}, exitFailed, "its end is open"},
		{"a start without a secret", []string{"serve"}, exitFailed, "openssl rand -base64 32"},
		{"nobody there", []string{"send", "--user", "alice", "--body", "1", "--url", "http://127.0.0.1:1"}, exitFailed,
			`is "carillon serve" running?`},
	}
	empty := "CARILLON_DATA=" + t.TempDir()
	for _, c := range cases {
		r := carillon(t, []string{empty, "CARILLON_API_KEY=cak_x"}, "", c.args...)
		if c.name == "no gateway" && strings.Contains(r.errOut, "cak_x") {
			t.Errorf("%s: the key is shown", c.name)
		}
		if r.code != c.code || !strings.Contains(r.out+r.errOut, c.want) {
			t.Errorf("%s: code %d, want %d; %q should hold %q", c.name, r.code, c.code, r.out+r.errOut, c.want)
		}
	}
}

func TestConfig_EveryKeyButSecretsHasItsFlag(t *testing.T) {
	for _, k := range config.Keys() {
		if k.Flag == "" {
			continue
		}
		arg := "--" + k.Flag
		if !k.Bool {
			arg += "=" + k.Default
		}
		f := newConfigFlags()
		parser, err := kong.New(&f, kong.Exit(func(int) {}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse([]string{arg}); err != nil {
			t.Errorf("%s: %v", arg, err)
			continue
		}
		want := k.Default
		if k.Bool {
			want = "true"
		}
		if got := f.given(); len(got) != 1 || got[k.Name] != want {
			t.Errorf("%s: read as %v, want %s = %q", arg, got, k.Name, want)
		}
	}
}

func TestConfig_PrintIsAFileThatCheckTakes(t *testing.T) {
	const secret = "Vq3-a-secret-nobody-should-ever-see-1"
	env := []string{"CARILLON_SECRET=" + secret, "CARILLON_URL=passed over"}
	printed := carillon(t, env, "", "config", "print", "--public-origins", "*.example.com,https://example.org",
		"--limits-write-deadline", "90s")
	if printed.code != exitOK {
		t.Fatal(printed.errOut)
	}
	if strings.Contains(printed.out, secret) {
		t.Error("the secret is shown")
	}
	for _, want := range []string{"# --limits-write-deadline\n", "# default\n", "# CARILLON_SECRET\n"} {
		if !strings.Contains(printed.out, want) {
			t.Errorf("%q is not in\n%s", want, printed.out)
		}
	}
	again := carillon(t, env, "", "config", "print", "--config", writeFile(t, printed.out))
	values := func(s string) []string {
		lines := strings.Split(s, "\n")
		for i, l := range lines {
			lines[i], _, _ = strings.Cut(l, " # ")
			lines[i] = strings.TrimSpace(lines[i])
		}
		return lines
	}
	if again.code != exitOK || !slices.Equal(values(again.out), values(printed.out)) {
		t.Errorf("read again:\n%s%s\nwant the values of\n%s", again.out, again.errOut, printed.out)
	}
}

func TestPrintable_LetsNothingSteerTheTerminal(t *testing.T) {
	cases := []struct{ in, want string }{
		{"plain {\"ä\":\"日本\"}\n\t", "plain {\"ä\":\"日本\"}\n\t"},
		{"\x1b[2J", `\u001b[2J`},
		{"\u009b31m\x7f\r", `\u009b31m\u007f\u000d`},
		{"a\u202eb\u2066c", `a\u202eb\u2066c`},
	}
	for _, c := range cases {
		if got := printable(c.in); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}
