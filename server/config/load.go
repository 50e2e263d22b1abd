package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// Sources are where a configuration comes from. Any of them may be empty.
type Sources struct {
	File  string            // path of a YAML file
	Env   []string          // NAME=value, as from os.Environ; those without [Prefix] are passed over
	Known []string          // names of variables with [Prefix] that are somebody else's
	Flags map[string]string // by key: what was given on the command line
	// ReadFile reads the file that secret_file names; nil: os.ReadFile.
	ReadFile func(path string) ([]byte, error)
}

// Setting is one key of a loaded configuration: its value as it would be written, secrets hidden, and its origin.
type Setting struct {
	Key    string
	Value  string
	Origin string
}

// Loaded is a configuration and where each of its values came from.
type Loaded struct {
	Config
	origins map[string]string
}

// Settings returns all keys with their values, in the order of the table.
func (l *Loaded) Settings() []Setting {
	out := make([]Setting, len(table))
	for i, k := range table {
		origin := l.origins[k.name]
		if origin == "" {
			origin = "default"
		}
		out[i] = Setting{k.name, k.get(&l.Config), origin}
	}
	return out
}

// Load puts the sources together and checks the result. The error names everything that is wrong, one a line, and never
// a value.
func Load(s Sources) (*Loaded, error) {
	l := &Loaded{Config: Default(), origins: make(map[string]string)}
	var errs []error
	if s.File != "" {
		errs = append(errs, l.loadFile(s.File)...)
	}
	errs = append(errs, l.loadEnv(s)...)
	for _, k := range table {
		if v, ok := s.Flags[k.name]; ok {
			errs = append(errs, l.set(k, v, "--"+flagName(k.name)))
		}
	}
	errs = append(errs,
		l.loadSecret(s.ReadFile, "secret", &l.Secret, l.SecretFile),
		l.loadSecret(s.ReadFile, "redis.password", &l.Redis.Password, l.Redis.PasswordFile),
		l.loadSecret(s.ReadFile, "node.secret", &l.Node.Secret, l.Node.SecretFile))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if err := l.check(); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Loaded) set(k key, value, origin string) error {
	if err := k.set(&l.Config, value); err != nil {
		return fmt.Errorf("%s (%s): %w", k.name, origin, err)
	}
	l.origins[k.name] = origin
	return nil
}

func (l *Loaded) loadFile(path string) []error {
	k := koanf.New(".")
	if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
		return []error{fmt.Errorf("configuration file %s: %w", path, withoutQuotes(err))}
	}
	all := k.All()
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	var errs []error
	for _, name := range names {
		i := slices.IndexFunc(table, func(k key) bool { return k.name == name })
		if i < 0 {
			if !isEmptySection(name, all[name]) {
				errs = append(errs, fmt.Errorf("%s: there is no key %q%s", path, name, suggest(name, keyNames())))
			}
			continue
		}
		value, err := written(table[i], all[name])
		if err == nil {
			err = l.set(table[i], value, path)
		} else {
			err = fmt.Errorf("%s (%s): %w", name, path, err)
		}
		errs = append(errs, err)
	}
	return errs
}

// withoutQuotes drops what the YAML parser quotes of the file, which may be a secret.
func withoutQuotes(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "`") {
		return err
	}
	before, _, _ := strings.Cut(err.Error(), "`")
	return fmt.Errorf("%s...: it is not a set of keys and values", before)
}

// isEmptySection reports whether the name is that of a section in which nothing stands.
func isEmptySection(name string, value any) bool {
	m, isMap := value.(map[string]any)
	return (value == nil || isMap && len(m) == 0) &&
		slices.ContainsFunc(table, func(k key) bool { return strings.HasPrefix(k.name, name+".") })
}

// written turns a value of the file into the text that the key reads.
func written(k key, value any) (string, error) {
	switch v := value.(type) {
	case nil:
		return "", errors.New("it has no value; leave the key out for the default")
	case []any:
		if !k.list {
			return "", errors.New("it is one value, not a list")
		}
		parts := make([]string, len(v))
		for i, e := range v {
			s, ok := e.(string)
			if !ok || strings.Contains(s, ",") {
				return "", errors.New("it is a list of texts without commas")
			}
			parts[i] = s
		}
		return strings.Join(parts, ","), nil
	case map[string]any:
		return "", errors.New("it is a value, not a section")
	}
	if _, ok := value.(string); k.secret && !ok {
		return "", errors.New("it is a text; write it in quotes")
	}
	return fmt.Sprint(value), nil
}

func (l *Loaded) loadEnv(s Sources) []error {
	var errs []error
	for _, entry := range s.Env {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, Prefix) || slices.Contains(s.Known, name) {
			continue
		}
		i := slices.IndexFunc(table, func(k key) bool { return envName(k.name) == name })
		if i < 0 && value == "" {
			continue // it says nothing
		}
		if i < 0 {
			known := slices.Clone(s.Known)
			for _, k := range table {
				known = append(known, envName(k.name))
			}
			errs = append(errs, fmt.Errorf("environment: there is no variable %s%s", name, suggest(name, known)))
			continue
		}
		errs = append(errs, l.set(table[i], value, name))
	}
	return errs
}

// loadSecret reads the file that holds a secret, if there is one; the key of the file is that of the secret with _file behind it.
func (l *Loaded) loadSecret(read func(string) ([]byte, error), name string, secret *Secret, path string) error {
	if path == "" {
		return nil
	}
	if !secret.IsZero() {
		return fmt.Errorf("%s (%s) and %[1]s_file (%[3]s): give one of them", name, l.origins[name], l.origins[name+"_file"])
	}
	if read == nil {
		read = os.ReadFile
	}
	b, err := read(path)
	if err != nil {
		return fmt.Errorf("%s_file (%s): %w", name, l.origins[name+"_file"], err)
	}
	*secret = NewSecret(strings.TrimSpace(string(b)))
	l.origins[name] = "file " + path
	return nil
}

// sameAddress reports whether two listeners would meet. Port 0 is another one each time.
func sameAddress(a, b string) bool { return a != "" && a == b && !strings.HasSuffix(a, ":0") }

// check says what is wrong between keys.
func (l *Loaded) check() error {
	var errs []error
	if l.Secret.IsZero() && !l.Dev {
		errs = append(errs, errors.New("secret: a server needs one; make it with `openssl rand -base64 32`, put it into a "+
			"file that only the server can read and name that with --secret-file, or set CARILLON_SECRET. "+
			"For development use --dev"))
	}
	if sameAddress(l.Public.Listen, l.Admin.Listen) {
		errs = append(errs, errors.New("public.listen and admin.listen: they are the same address; the administration "+
			"has one of its own"))
	}
	if sameAddress(l.TCP.Listen, l.Public.Listen) || sameAddress(l.TCP.Listen, l.Admin.Listen) {
		errs = append(errs, errors.New("tcp.listen: it is the address of another listener; raw TCP has one of its own, or is off"))
	}
	if len(l.TLS.Cert) != len(l.TLS.Key) {
		errs = append(errs, fmt.Errorf("tls.cert and tls.key: %d certificates and %d keys; each certificate has its key, in the same "+
			"order", len(l.TLS.Cert), len(l.TLS.Key)))
	}
	if l.Proxy.Header == ProxyV2 && len(l.Proxy.Trusted) == 0 {
		errs = append(errs, errors.New("proxy.header: the PROXY protocol is spoken by trusted proxies alone; name them with "+
			"proxy.trusted"))
	}
	return errors.Join(append(errs, l.checkCluster())...)
}
