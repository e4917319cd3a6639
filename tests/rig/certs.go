package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// authority is a certificate authority whose key lives only in this process.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
	dir  string
}

func newAuthority(dir, name string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := sign(template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{cert, key, dir}, writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", der)
}

// issue writes NAME.crt and NAME.key for both client and server use.
func (a *authority) issue(name, user string, groups []string, ips []string, names []string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: user, Organization: groups},
		DNSNames:    names,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, ip := range ips {
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(ip))
	}
	der, err := sign(template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(a.dir, name+".crt"), "CERTIFICATE", der); err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(a.dir, name+".key"), "PRIVATE KEY", keyDER)
}

func sign(template, parent *x509.Certificate, public any, key crypto.Signer) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Minute)
	template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	return x509.CreateCertificate(rand.Reader, template, parent, public, key)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// writeCredentials makes the cluster's CA, every component's certificate and
// kubeconfig, and the service-account key pair, all under DIR/pki.
func writeCredentials(c *Cluster) error {
	dir := c.path("pki")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(dir, "ca")
	if err != nil {
		return err
	}
	front, err := newAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	if err := front.issue("front-proxy-client", "front-proxy-client", nil, nil, nil); err != nil {
		return err
	}
	addresses := append([]string{"127.0.0.1"}, c.Nodes[0].IP.list()...)
	for _, services := range c.SvcCIDR.list() {
		addresses = append(addresses, nth(services, 1)) // of Service default/kubernetes
	}
	apiNames := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local", "localhost"}
	if err := ca.issue("apiserver", "kube-apiserver", nil, addresses, apiNames); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		serves := append([]string{"127.0.0.1"}, n.IP.list()...)
		if err := ca.issue("kubelet-server-"+n.Name, n.Name, nil, serves, []string{n.Name}); err != nil {
			return err
		}
		user := "kubelet-" + n.Name
		if err := ca.issue(user, "system:node:"+n.Name, []string{"system:nodes"}, nil, nil); err != nil {
			return err
		}
		if err := writeKubeconfig(c, user); err != nil {
			return err
		}
	}
	for name, who := range map[string][2]string{
		"admin":                    {"rig-admin", "system:masters"},
		"apiserver-kubelet-client": {"kube-apiserver-kubelet-client", "system:masters"},
		"controller-manager":       {"system:kube-controller-manager", ""},
		"scheduler":                {"system:kube-scheduler", ""},
		"proxy":                    {"system:kube-proxy", ""},
	} {
		var groups []string
		if who[1] != "" {
			groups = []string{who[1]}
		}
		if err := ca.issue(name, who[0], groups, nil, nil); err != nil {
			return err
		}
		if err := writeKubeconfig(c, name); err != nil {
			return err
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	publicDER, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	if err := writePEM(filepath.Join(dir, "sa.key"), "PRIVATE KEY", keyDER); err != nil {
		return err
	}
	return writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", publicDER)
}

// apiServer is where the cluster's API answers, for everyone on the WAN.
func (c *Cluster) apiServer() string { return "https://" + c.Nodes[0].IP.V4 + ":6443" }

func writeKubeconfig(c *Cluster, user string) error {
	var data []any
	for _, name := range []string{"ca.crt", user + ".crt", user + ".key"} {
		content, err := os.ReadFile(c.path("pki", name))
		if err != nil {
			return err
		}
		data = append(data, base64.StdEncoding.EncodeToString(content))
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
clusters:
- name: %[1]s
  cluster: {server: %[2]q, certificate-authority-data: %[4]s}
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[3]s@%[1]s}
users:
- name: "%[3]s@%[1]s"
  user: {client-certificate-data: %[5]s, client-key-data: %[6]s}
`, append([]any{c.Name, c.apiServer(), user}, data...)...)
	return os.WriteFile(c.path("pki", user+".kubeconfig"), []byte(text), 0o600)
}
