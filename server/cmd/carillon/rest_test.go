package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const sent = `{"id":"7345881023471616","persistent":true,"created":"2026-11-22T09:35:59.120Z",
	"expires":"2026-11-29T09:35:59.120Z","targets":{"users":1},"membership":"at_send"}`

func TestSend_BuildsTheRequest(t *testing.T) {
	f := newFakeServer(t, 201, sent)
	dir := devData(t, f.URL, "http://127.0.0.1:1")
	file := writeFile(t, `{"from":"file"}`)
	cases := []struct {
		args  string // split at blanks
		stdin string
		want  string
	}{
		{`--user alice --body {"n":1}`, "", `{"to":{"users":["alice"]},"message":{"body":{"n":1}}}`},
		{`-u alice -u b,ob --body 1`, "", `{"to":{"users":["alice","b,ob"]},"message":{"body":1}}`},
		{`--device alice/phone --device a%2Fb/c/d --body null`, "",
			`{"to":{"devices":[{"user":"alice","device":"phone"},{"user":"a/b","device":"c/d"}]},"message":{"body":null}}`},
		{`--everyone --body-base64 AAE=`, "", `{"to":{"everyone":true},"message":{"body_base64":"AAE="}}`},
		{`--user alice --body-file ` + file, "", `{"to":{"users":["alice"]},"message":{"body":{"from":"file"}}}`},
		{`--user alice --body-file -`, `"in"`, `{"to":{"users":["alice"]},"message":{"body":"in"}}`},
		{`--user alice --body-file - --binary`, "\x00\x01", `{"to":{"users":["alice"]},"message":{"body_base64":"AAE="}}`},
		{`--user alice --body-file - --binary`, "", `{"to":{"users":["alice"]},"message":{"body_base64":""}}`},
		{`--user alice --body 1 --ttl 2m --collapse-key score --header a=b --header c=d=e,f --ref mine`, "",
			`{"to":{"users":["alice"]},"message":{"body":1,"ttl_seconds":120,"collapse_key":"score",
			"headers":{"a":"b","c":"d=e,f"},"ref":"mine"}}`},
		{`--tag news.sport --tag a,b --not-tag trial --platform ios --platform android --class mobile --body 1`, "",
			`{"to":{"tags":{"all":["news.sport","a,b"],"not":["trial"]},"platforms":["ios","android"],"classes":["mobile"]},"message":{"body":1}}`},
		{`--tag vip --membership at_send --body 1`, "", `{"to":{"tags":{"all":["vip"]},"membership":"at_send"},"message":{"body":1}}`},
		{`--not-tag trial --body 1`, "", `{"to":{"tags":{"not":["trial"]}},"message":{"body":1}}`},
		{`--tags {"any":["a",{"not":["b"]}]} --body 1`, "", `{"to":{"tags":{"any":["a",{"not":["b"]}]}},"message":{"body":1}}`},
		{`--user alice --platform web --body 1`, "", `{"to":{"users":["alice"],"platforms":["web"]},"message":{"body":1}}`},
		{`--user alice --body 1 --online-only --validate-only`, "",
			`{"to":{"users":["alice"]},"message":{"body":1,"persistent":false},"validate_only":true}`},
	}
	for _, c := range cases {
		args := append([]string{"send", "--data", dir}, strings.Fields(c.args)...)
		r := carillon(t, nil, c.stdin, args...)
		if r.code != exitOK {
			t.Errorf("%s: %s", c.args, r.errOut)
			continue
		}
		got := f.last(t)
		if got.method != "POST" || got.path != "/v1/messages" || got.bearer != "cak_dev" {
			t.Errorf("%s: asked %s %s as %s", c.args, got.method, got.path, got.bearer)
		}
		if !reflect.DeepEqual(got.body, jsonValue(t, c.want)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.args, got.body, c.want)
		}
	}
}

func TestSend_RefusesWhatCannotBeMeant(t *testing.T) {
	for _, args := range []string{
		"--device alice --body 1", "--device /phone --body 1", "--user alice --body 1 --ttl 1500ms",
		"--user alice --body 1 --header novalue", "--user alice --body 1 --header a=1 --header a=2",
		"--tag a --user alice --body 1", "--not-tag a --everyone --body 1", "--tags {} --device a/b --body 1", "--tags {} --tag a --body 1",
		"--tags {} --not-tag a --body 1", "--tags a --body 1", "--platform web --body 1",
		"--user alice --body-base64 !!!", "--user alice --body 1 --body-base64 AAE=",
	} {
		r := carillon(t, []string{"CARILLON_URL=http://127.0.0.1:1", "CARILLON_API_KEY=x"}, "",
			append([]string{"send"}, strings.Fields(args)...)...)
		if r.code != exitUsage {
			t.Errorf("%s: code %d, want %d (%s)", args, r.code, exitUsage, r.errOut)
		}
	}
}

func TestSend_SaysWhoseDevicesAreMeant(t *testing.T) {
	for targets, want := range map[string]string{
		`{"tags":{"all":["vip"]}}`: "for who has the tags until", `{"users":2,"platforms":["ios","web"]}`: "for 2 users on ios, web until",
		`{"everyone":true,"classes":["mobile"]}`: "for everyone on mobile until",
	} {
		f := newFakeServer(t, 201, `{"id":"1","persistent":true,"created":"c","expires":"e","targets":`+targets+`,"membership":"at_delivery"}`)
		r := carillon(t, nil, "", "send", "--data", devData(t, f.URL, ""), "--tag", "vip", "--body", "1")
		if !strings.Contains(r.out, want) {
			t.Errorf("%s: got %q, want %q in it", targets, r.out, want)
		}
	}
}

func TestSend_SaysHowLargeAnAudienceIs(t *testing.T) {
	for body, want := range map[string]string{
		`{"valid":true}`: "the request is right; nothing was sent\n",
		`{"valid":true,"estimate":{"users":1,"devices":2,"exact":true}}`:       "; it would be for 2 devices of 1 user, by",
		`{"valid":true,"estimate":{"users":900,"devices":1100,"exact":false}}`: "; it would be for about 1100 devices of 900 users, by",
	} {
		f := newFakeServer(t, 200, body)
		r := carillon(t, nil, "", "send", "--data", devData(t, f.URL, ""), "--tag", "vip", "--body", "1", "--validate-only")
		if r.code != exitOK || !strings.Contains(r.out, want) {
			t.Errorf("%s: got %q, want %q in it", body, r.out, want)
		}
	}
}

func TestSend_SaysWhatBecameOfIt(t *testing.T) {
	f := newFakeServer(t, 201, sent)
	dir := devData(t, f.URL, "")
	r := carillon(t, nil, "", "send", "--data", dir, "--user", "alice", "--body", "1", "--idempotency-key", "k-1")
	if want := "stored message 7345881023471616 for 1 user until 2026-11-29T09:35:59.120Z\n"; r.out != want {
		t.Errorf("got %q, want %q", r.out, want)
	}
	if got := f.last(t).key; got != "k-1" {
		t.Errorf("idempotency key %q, want k-1", got)
	}
	carillon(t, nil, "", "send", "--data", dir, "--user", "alice", "--body", "1")
	if f.last(t).key == "" {
		t.Error("no idempotency key was made up")
	}

	refused := newFakeServer(t, 400, `{"type":"x","title":"The request is wrong.","status":400,"code":"invalid_request",
		"errors":[{"pointer":"/message/ref","code":"too_long"}]}`)
	r = carillon(t, nil, "", "send", "--data", dir, "--url", refused.URL, "--user", "alice", "--body", "1")
	if r.code != exitUsage || len(refused.got) != 0 {
		t.Errorf("the development server's key went elsewhere: code %d, %d requests", r.code, len(refused.got))
	}
	r = carillon(t, []string{"CARILLON_API_KEY=cak_other"}, "", "send", "--data", dir, "--url", refused.URL,
		"--user", "alice", "--body", "1")
	if r.code != exitFailed || !strings.Contains(r.errOut, "(invalid_request)\n  /message/ref: too_long\n") {
		t.Errorf("code %d: %s", r.code, r.errOut)
	}

	unsure := newFakeServer(t, 503, "no JSON at all")
	r = carillon(t, nil, "", "send", "--data", devData(t, unsure.URL, ""), "--user", "alice", "--body", "1")
	key := unsure.last(t).key
	if r.code != exitFailed || !strings.Contains(r.errOut, "repeat the command with --idempotency-key "+key) {
		t.Errorf("code %d: %s", r.code, r.errOut)
	}
}

func TestCredentials_FlagWinsOverEnvironmentOverDevelopment(t *testing.T) {
	f := newFakeServer(t, 201, sent)
	dir := devData(t, f.URL, f.URL)
	apiFile, envFile := writeFile(t, "cak_file\n"), writeFile(t, "cak_env_file\n")
	secretFile := writeFile(t, "the-secret\n")
	cases := []struct {
		args, env []string
		want      string
	}{
		{nil, nil, "cak_dev"},
		{nil, []string{"CARILLON_API_KEY_FILE=" + envFile}, "cak_env_file"},
		{nil, []string{"CARILLON_API_KEY=cak_env", "CARILLON_API_KEY_FILE=" + envFile}, "cak_env"},
		{[]string{"--api-key-file", apiFile}, []string{"CARILLON_API_KEY=cak_env"}, "cak_file"},
	}
	for _, c := range cases {
		args := append([]string{"send", "--data", dir, "--user", "alice", "--body", "1"}, c.args...)
		if r := carillon(t, c.env, "", args...); r.code != exitOK {
			t.Errorf("%v: %s", c, r.errOut)
		} else if got := f.last(t).bearer; got != c.want {
			t.Errorf("%v: sent as %q", c, got)
		}
	}
	f.answer = `{"products":[]}`
	for _, c := range []struct {
		args, env []string
		want      string
	}{
		{nil, nil, "dev-secret"},
		{nil, []string{"CARILLON_SECRET=env"}, "env"},
		{[]string{"--secret-file", secretFile}, []string{"CARILLON_SECRET=env"}, "the-secret"},
	} {
		args := append([]string{"product", "list", "--data", dir}, c.args...)
		if r := carillon(t, c.env, "", args...); r.code != exitOK {
			t.Errorf("%v: %s", c, r.errOut)
		} else if got := f.last(t).bearer; got != c.want {
			t.Errorf("%v: sent as %q", c, got)
		}
	}
}

func TestAdministration_AsksForTheRightThing(t *testing.T) {
	f := newFakeServer(t, 200, `{"took_ms":1500}`)
	dir := devData(t, "", f.URL)
	pem := writeFile(t, "-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----\n")
	shared := writeFile(t, base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", 32))))
	backup := filepath.Join(dir, "backup")
	policy := writeFile(t, `{"rules": [{"scope": "platform", "of": "tv", "max": 2}]}`+"\n")
	cases := []struct {
		args, method, path, body string
	}{
		{"product create shop --name Shop --shards 8 --limit own_messages=5 --limit own_bytes=default --token-lifetime 2h",
			"POST", "/admin/v1/products", `{"id":"shop","name":"Shop","shards":8,"token_lifetime_seconds":7200,
			"limits":{"own_messages":5,"own_bytes":null}}`},
		{"product update shop --disable --first-visit common=beginning --first-visit later=default --token-lifetime default",
			"PATCH", "/admin/v1/products/shop", `{"disabled":true,"token_lifetime_seconds":null,
			"first_visit":{"common":"beginning","later":null}}`},
		{"product update shop --jwks-url https://example.com/keys", "PATCH", "/admin/v1/products/shop",
			`{"jwks_url":"https://example.com/keys"}`},
		{"product update shop --jwks-url none", "PATCH", "/admin/v1/products/shop", `{"jwks_url":null}`},
		{"product update shop --enable", "PATCH", "/admin/v1/products/shop", `{"disabled":false}`},
		{"product update shop --policy one-session", "PATCH", "/admin/v1/products/shop",
			`{"session_policy":{"rules":[{"scope":"account","max":1,"on_excess":"kick_oldest"}]}}`},
		{"product create shop --policy desktop-free-one-mobile --on-excess reject_new", "POST", "/admin/v1/products",
			`{"id":"shop","session_policy":{"classes":{"android":"mobile","ios":"mobile","tablet":"mobile"},
			"rules":[{"scope":"class","of":"mobile","max":1,"on_excess":"reject_new"}]}}`},
		{"product update shop --policy at-most-17", "PATCH", "/admin/v1/products/shop",
			`{"session_policy":{"rules":[{"scope":"account","max":17,"on_excess":"kick_oldest"}]}}`},
		{"product update shop --policy none", "PATCH", "/admin/v1/products/shop", `{"session_policy":null}`},
		{"product update shop --policy " + policy, "PATCH", "/admin/v1/products/shop",
			`{"session_policy":{"rules":[{"scope":"platform","of":"tv","max":2}]}}`},
		{"key create --kind api --scope messages:write --scope users:read --name n --ends 2027-01-31T01:00:00+01:00",
			"POST", "/admin/v1/products/dev/api-keys",
			`{"name":"n","scopes":["messages:write","users:read"],"expires":"2027-01-31T00:00:00Z"}`},
		{"key create --kind device --product shop", "POST", "/admin/v1/products/shop/device-keys", `{"alg":"HS256"}`},
		{"key create --kind device --shared-secret-file " + shared, "POST", "/admin/v1/products/dev/device-keys",
			`{"alg":"HS256","secret_base64":"` + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", 32))) + `"}`},
		{"key create --kind device --alg EdDSA --kid k1 --public-key-file " + pem, "POST",
			"/admin/v1/products/dev/device-keys",
			`{"alg":"EdDSA","id":"k1","public_key":"-----BEGIN PUBLIC KEY-----\nabc\n-----END PUBLIC KEY-----"}`},
		{"key revoke --kind api k1", "DELETE", "/admin/v1/products/dev/api-keys/k1", ""},
		{"key revoke --kind device --product shop k1", "DELETE", "/admin/v1/products/shop/device-keys/k1", ""},
		{"backup " + backup, "POST", "/admin/v1/backup", `{"directory":"` + backup + `"}`},
	}
	for _, c := range cases {
		words := strings.Fields(c.args)
		r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", words...)
		if r.code != exitOK {
			t.Errorf("%s: %s", c.args, r.errOut)
			continue
		}
		got := f.last(t)
		if got.method != c.method || got.path != c.path || got.bearer != "dev-secret" {
			t.Errorf("%s: asked %s %s as %s", c.args, got.method, got.path, got.bearer)
		}
		if c.body == "" && got.body != nil || c.body != "" && !reflect.DeepEqual(got.body, jsonValue(t, c.body)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.args, got.body, c.body)
		}
	}
	asked := len(f.got)
	for _, args := range []string{
		"product update shop", "product create shop --limit own_messages=many", "product create x --token-lifetime 5",
		"product update shop --policy one-sesion", "product update shop --policy at-most-", "product update shop --policy at-most--1",
		"product update shop --policy one-session --on-excess ask", "product update shop --on-excess reject_new",
		"product update shop --policy none --on-excess reject_new", "product update shop --policy " + shared,
		"product update shop --policy " + policy + " --on-excess reject_new", "product policy one-sesion",
		"key create --kind api", "key create --kind api --scope * --kid k", "key create --kind device --scope *",
		"key create --kind api --scope * --ends soon", "key create --kind device --alg ES256",
		"key create --kind device --public-key-file " + pem, "key list --kind other", "key list",
	} {
		r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", strings.Fields(args)...)
		if r.code != exitUsage {
			t.Errorf("%s: code %d, want %d (%s)", args, r.code, exitUsage, r.errOut)
		}
	}
	if len(f.got) != asked {
		t.Error("a wrong command line reached the server")
	}
}

func TestLists_PrintEveryPage(t *testing.T) {
	f := newFakeServer(t, 200, "")
	dir := devData(t, "", f.URL)
	f.answer = `{"keys":[{"id":"k1","name":"a\u001b[2Jb","scopes":["messages:write","*"],"created":"2026-11-22T00:00:00.000Z"}]}`
	r := carillon(t, nil, "", "key", "list", "--data", dir, "--kind", "api")
	want := "ID  NAME            SCOPES            CREATED                   EXPIRES  REVOKED\n" +
		"k1  a\\u001b[2Jb     messages:write,*  2026-11-22T00:00:00.000Z  -        -\n"
	if strings.Join(strings.Fields(r.out), " ") != strings.Join(strings.Fields(want), " ") {
		t.Errorf("got\n%s\nwant\n%s", r.out, want)
	}
	r = carillon(t, nil, "", "key", "list", "--data", dir, "--kind", "api", "--json")
	if !strings.HasPrefix(r.out, `{"id":"k1"`) {
		t.Errorf("got %q", r.out)
	}
}

func TestKeyCreate_KeepsTheSecret(t *testing.T) {
	f := newFakeServer(t, 201, `{"id":"k1","key":"cak_k1_secret"}`)
	dir := devData(t, "", f.URL)
	r := carillon(t, nil, "", "key", "create", "--data", dir, "--kind", "api", "--scope", "*")
	if r.out != "cak_k1_secret\n" {
		t.Errorf("shown as %q", r.out)
	}
	out := filepath.Join(dir, "key")
	r = carillon(t, nil, "", "key", "create", "--data", dir, "--kind", "api", "--scope", "*", "--out", out)
	b, err := os.ReadFile(out)
	if err != nil || string(b) != "cak_k1_secret\n" || strings.Contains(r.out+r.errOut, "secret") {
		t.Errorf("file %q, %v; shown %q", b, err, r.out+r.errOut)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	asked := len(f.got)
	r = carillon(t, nil, "", "key", "create", "--data", dir, "--kind", "api", "--scope", "*", "--out", out)
	if r.code != exitFailed || len(f.got) != asked {
		t.Error("a key was made though its file could not be")
	}
	f.status = 403
	gone := filepath.Join(dir, "gone")
	carillon(t, nil, "", "key", "create", "--data", dir, "--kind", "api", "--scope", "*", "--out", gone)
	if _, err := os.Stat(gone); err == nil {
		t.Error("a refused key leaves an empty file")
	}
}

func TestUsers_AsksForTheRightThing(t *testing.T) {
	f := newFakeServer(t, 200, `{"status":"confirmed","sessions":1,"ends":"2026-12-22T10:35:59.120Z","tags":["vip"]}`)
	dir := devData(t, f.URL, f.URL)
	cases := []struct {
		args, method, path, body string
		out                      string
	}{
		{"kick al/ice", "POST", "/v1/users/al%2Fice/kick", `{}`, "ended 1 session\n"},
		{"kick alice --device phone --token-id t-1 --reason moved", "POST", "/v1/users/alice/kick",
			`{"device":"phone","token_id":"t-1","reason":"moved"}`, "ended 1 session\n"},
		{"revocation create alice", "POST", "/v1/users/alice/revoke", `{}`, "revoked until 2026-12-22T10:35:59.120Z; ended 1 session\n"},
		{"revocation create alice --device phone --reason stolen", "POST", "/v1/users/alice/revoke",
			`{"device":"phone","reason":"stolen"}`, "revoked until 2026-12-22T10:35:59.120Z; ended 1 session\n"},
		{"revocation create alice --token-id t-1", "POST", "/v1/users/alice/revoke", `{"token_id":"t-1"}`,
			"revoked until 2026-12-22T10:35:59.120Z; ended 1 session\n"},
		{"revocation lift alice", "DELETE", "/v1/users/alice/revoke", "", "lifted\n"},
		{"revocation lift alice --device a&b", "DELETE", "/v1/users/alice/revoke?device=a%26b", "", "lifted\n"},
		{"revocation lift alice --token-id t-1", "DELETE", "/v1/users/alice/revoke?token_id=t-1", "", "lifted\n"},
		{"tags show alice", "GET", "/v1/users/alice/tags", "", "vip\n"},
		{"tags show al/ice --device ph/one", "GET", "/v1/users/al%2Fice/devices/ph%2Fone/tags", "", "vip\n"},
		{"tags set alice vip beta", "PUT", "/v1/users/alice/tags", `{"tags":["vip","beta"]}`, "vip\n"},
		{"tags set alice --device phone", "PUT", "/v1/users/alice/devices/phone/tags", `{"tags":[]}`, "vip\n"},
		{"tags change alice --add vip --add a,b --remove trial", "PATCH", "/v1/users/alice/tags",
			`{"add":["vip","a,b"],"remove":["trial"]}`, "vip\n"},
		{"drain", "POST", "/admin/v1/drain", `{}`, "the node drains\n"},
		{"drain --spread 2m --address https://b.example.com", "POST", "/admin/v1/drain",
			`{"spread_seconds":120,"address":"https://b.example.com"}`, "the node drains\n"},
		{"drain --address=", "POST", "/admin/v1/drain", `{"address":""}`, "the node drains\n"},
	}
	for _, c := range cases {
		r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", strings.Fields(c.args)...)
		if r.code != exitOK || r.out != c.out {
			t.Errorf("%s: code %d, printed %q, want %q (%s)", c.args, r.code, r.out, c.out, r.errOut)
			continue
		}
		got, bearer := f.last(t), "cak_dev"
		if strings.HasPrefix(c.path, "/admin/") {
			bearer = "dev-secret"
		}
		if got.method != c.method || got.path != c.path || got.bearer != bearer {
			t.Errorf("%s: asked %s %s as %s", c.args, got.method, got.path, got.bearer)
		}
		if c.body == "" && got.body != nil || c.body != "" && !reflect.DeepEqual(got.body, jsonValue(t, c.body)) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.args, got.body, c.body)
		}
	}
	asked := len(f.got)
	for _, args := range []string{
		"kick", "revocation create alice --device a --token-id b", "revocation lift alice --device a --token-id b",
		"tags change alice", "tags set", "tags load", "drain --spread 1500ms", "drain --spread -1s",
	} {
		r := carillon(t, []string{"CARILLON_DATA=" + dir}, "", strings.Fields(args)...)
		if r.code != exitUsage {
			t.Errorf("%s: code %d, want %d (%s)", args, r.code, exitUsage, r.errOut)
		}
	}
	if len(f.got) != asked {
		t.Error("a wrong command line reached the server")
	}
}

func TestUsers_SayWhatIsNotCertainAndShowWhatIsThere(t *testing.T) {
	f := newFakeServer(t, 200, `{"status":"pending","sessions":2,"certain":"2026-11-22T09:36:02.120Z"}`)
	dir := devData(t, f.URL, "")
	r := carillon(t, nil, "", "kick", "--data", dir, "alice")
	if want := "ended 2 sessions, and those of rooms that could not be told at 2026-11-22T09:36:02.120Z at the latest\n"; r.out != want {
		t.Errorf("got %q, want %q", r.out, want)
	}
	f.answer = `{"tags":["kiosk"],"joined":["news\u001b[2J"]}`
	r = carillon(t, nil, "", "tags", "show", "--data", dir, "alice", "--device", "phone")
	if want := "kiosk\nnews\\u001b[2J (joined)\n"; r.out != want {
		t.Errorf("got %q, want %q", r.out, want)
	}
	f.answer = `{"revocations":[{"user":"alice","device":"phone","reason":"stolen","issued_until":"2026-11-22T09:35:59.120Z",
		"ends":"2026-12-22T10:35:59.120Z"}]}`
	r = carillon(t, nil, "", "revocation", "list", "--data", dir)
	want := "USER DEVICE TOKEN_ID ISSUED_UNTIL ENDS REASON alice phone - 2026-11-22T09:35:59.120Z 2026-12-22T10:35:59.120Z stolen"
	if got := strings.Join(strings.Fields(r.out), " "); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTagsLoad_SendsEveryLineAndNamesThoseRefused(t *testing.T) {
	f := newFakeServer(t, 200, `{"results":[{"status":200,"tags":[]},{"status":404,"problem":{"title":"The user has no such device",
		"status":404,"code":"device_not_found"}},{"status":200,"tags":["vip"]}]}`)
	dir := devData(t, f.URL, "")
	lines := `{"user":"alice","set":[]}` + "\n\n" + `{"user":"bob","device":"x","set":["a"]}` + "\n" + ` {"user":"cathy","add":["vip"]} ` + "\n"
	r := carillon(t, nil, lines, "tags", "load", "--data", dir, "-")
	if r.code != exitFailed || !strings.Contains(r.errOut, "line 3: 404 The user has no such device (device_not_found)") ||
		!strings.Contains(r.errOut, "1 line refused, 2 changed") {
		t.Errorf("code %d: %s", r.code, r.errOut)
	}
	got := f.last(t)
	want := jsonValue(t, `{"changes":[{"user":"alice","set":[]},{"user":"bob","device":"x","set":["a"]},{"user":"cathy","add":["vip"]}]}`)
	if got.method != "POST" || got.path != "/v1/tags/batch" || !reflect.DeepEqual(got.body, want) {
		t.Errorf("asked %+v, want %v", got, want)
	}

	const n = 2*loadItems + 1
	f.answer = `{"results":[` + strings.TrimSuffix(strings.Repeat(`{"status":200,"tags":[]},`, loadItems), ",") + `]}`
	r = carillon(t, nil, strings.Repeat(`{"user":"alice","set":[]}`+"\n", n-1), "tags", "load", "--data", dir, "-")
	if r.code != exitOK || r.out != "changed the tags of 1000 lines\n" || len(f.got) != 3 {
		t.Errorf("code %d, printed %q in %d requests: %s", r.code, r.out, len(f.got)-1, r.errOut)
	}
	// An answer that does not fit the question is no success.
	r = carillon(t, nil, strings.Repeat(`{"user":"alice","set":[]}`+"\n", n), "tags", "load", "--data", dir, "-")
	if r.code != exitFailed || !strings.Contains(r.errOut, "answered 500 of 1 lines\n1000 lines changed before that") {
		t.Errorf("code %d: %s", r.code, r.errOut)
	}
	asked := len(f.got)
	for _, bad := range []string{"alice vip\n", "[]\n", `{"user":` + "\n"} {
		r = carillon(t, nil, bad, "tags", "load", "--data", dir, "-")
		if r.code != exitFailed || !strings.Contains(r.errOut, "line 1 holds no JSON object") {
			t.Errorf("%q: code %d: %s", bad, r.code, r.errOut)
		}
	}
	if r = carillon(t, nil, strings.Repeat("x", loadLineBytes+1), "tags", "load", "--data", dir, "-"); r.code != exitFailed {
		t.Error("a line without end was taken")
	}
	if len(f.got) != asked {
		t.Error("what is no change reached the server")
	}
}
